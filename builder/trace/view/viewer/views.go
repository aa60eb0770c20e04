package viewer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/view"
)

// Views are the views of one step. Their methods may be called concurrently.
type Views struct {
	client *client
	id     uint64 // of the request that mounted them
	dirs   []Directory

	mu     sync.Mutex
	closed bool
	seen   [][]trace.Seen
	err    error
}

const (
	mountWait   = 30 * time.Second // for an answer; a view is mounted in a millisecond
	defaultWait = 5 * time.Second  // for Close, when its context has no deadline
	answerWait  = 20 * time.Second // for the answer after that: names are sent by the million in a second
)

// Mount shows directories at their mount points, with places of first touches that are counted through all of them. What package view demands
// of them holds, with one exception: this process may do with the views what it likes.
func (p *Process) Mount(dirs ...Directory) (*Views, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), mountWait)
	defer cancel()
	v := &Views{client: c, dirs: dirs}
	v.id, _, err = c.ask(ctx, request{Mount: dirs}, 0)
	if err != nil {
		if ctx.Err() != nil { // it may have mounted some
			v.giveUp()
		}
		return nil, errors.Join(fmt.Errorf("mount views: %w", err), v.detachIfEnded())
	}
	return v, nil
}

// Close takes the views down, and returns what was seen of each, in the order of the first touches. An error says that this is not known: everything
// counts as read. As long as the mounts are in use it tries again, until ctx is done or for five seconds; then it detaches them.
// When the viewer has ended, ErrEnded is in the error. Further calls return the same.
func (v *Views) Close(ctx context.Context) ([][]trace.Seen, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.closed = true
		v.seen, v.err = v.close(ctx)
	}
	return v.seen, v.err
}

func (v *Views) close(ctx context.Context) ([][]trace.Seen, error) {
	wait := defaultWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), 0)
	}
	var errs []error
	for _, d := range v.dirs {
		if err := view.Alive(d.Mountpoint); err != nil { // the viewer itself may not ask
			errs = append(errs, err)
			break // others would have to be waited for, too
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait+answerWait)
	defer cancel()
	_, seen, err := v.client.ask(ctx, request{Close: v.id, Wait: wait}, len(v.dirs))
	if err != nil && ctx.Err() != nil {
		v.giveUp()
	}
	if errors.Is(err, ErrEnded) {
		errs = nil // for that reason
	}
	if err := errors.Join(append(errs, err, v.detachIfEnded())...); err != nil {
		return nil, fmt.Errorf("close views: %w", err)
	}
	return seen, nil
}

// giveUp ends a viewer that does not answer.
func (v *Views) giveUp() {
	v.client.conn.Close()
	<-v.client.ended
}

// detachIfEnded takes the mounts away that a viewer has left. Who still uses them gets errors.
func (v *Views) detachIfEnded() error {
	select {
	case <-v.client.ended:
	default:
		return nil
	}
	var errs []error
	for _, d := range v.dirs {
		err := unix.Unmount(d.Mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) { // it is not mounted
			errs = append(errs, &os.PathError{Op: "detach", Path: d.Mountpoint, Err: err})
		}
	}
	return errors.Join(errs...)
}
