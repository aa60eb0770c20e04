// Package tree removes what tests and the demo leave of an ordinary user's state directories.
package tree

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Remove removes a directory with everything in it: in a user namespace, where files of the user's subordinate ids are in it.
func Remove(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	out, uerr := exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf", dir).CombinedOutput()
	if uerr != nil {
		return errors.Join(err, fmt.Errorf("%w: %s", uerr, out))
	}
	return nil
}
