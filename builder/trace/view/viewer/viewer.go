// Package viewer serves views (package view) from a process of their own.
//
//	engine ──fork──> viewer: this binary under another name
//	   │  socket: mount, close; what was seen   │
//	   │                                        ├── /dev/fuse
//	   └── mounts overlays on views, runs steps └── layer directories
//
// Why: a thread that waits for an answer of a view can't be killed once the server has read the request. If the server is a thread of the
// same process and that is killed, nobody answers, the waiting thread keeps /dev/fuse open, so the kernel sees no server that died, and the
// process never ends; it hangs with all its locks. The engine does look into views by itself: it mounts overlays on them, and resolves users
// and mount points in a step's root file system. So whoever asks and whoever answers are two processes, and either may be killed at any time:
//
//   - the viewer never looks into its own views (view.Options.Silent): when it is killed, it ends, and who waits for it gets an error;
//   - the engine waits for the viewer only; when the engine is killed, the viewer answers, or is killed, too ([Process] says how).
//
// What comes in are directories and mount points, what goes out is what was seen ([trace.Seen]). A viewer that ends breaks all the views
// that it served: their record is an error, and a step that runs over them fails. The next step gets a new viewer.
package viewer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"

	"github.com/optbuild/optbuild/builder/trace/view"
)

// arg0 is the name under which this binary is a viewer, connection is the descriptor that it gets.
const (
	arg0       = "optbuild-viewer"
	connection = 3
)

// A process that is started as a viewer becomes one here, before the packages that a viewer does without are initialised: those of gRPC and all that
// come with it take most of the time that this binary takes to start. It also means that whatever program imports this package can be a viewer.
func init() {
	if len(os.Args) > 0 && os.Args[0] == arg0 {
		exit(run(mountView))
	}
}

// run serves the connection that this process was started with.
func run(mount mountFunc) error {
	debug.SetGCPercent(100) // the engine's environment switches the collector off
	file := os.NewFile(connection, "connection")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("open connection to the engine: %w", err)
	}
	return serve(conn, mount)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, arg0+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Directory is a directory that is shown, and where.
type Directory struct {
	Path       string // absolute
	Mountpoint string // absolute; an empty directory
}

// ErrEnded is wrapped by errors about views whose viewer has ended.
var ErrEnded = errors.New("the process that serves views has ended")

func mountView(d Directory, order *atomic.Uint32) (served, error) {
	return view.Mount(d.Path, d.Mountpoint, view.Options{Order: order, Silent: true})
}

// served is what a viewer needs of a view.
type served interface {
	Close(context.Context) error
	seer
}
