package trace

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	mostAtOnce = 8  // goroutines: reading is bound by the kernel's path walk and by hashing, which several processors share well
	block      = 32 // entries that a goroutine takes at a time: neighbours share their directory's descriptor
)

// each calls do for the numbers below n, in order if there are few and on several goroutines if there are many, each with a walker
// of its own. It returns the difference or the error of the lowest number that has one; those above may not have been called.
func each(root string, n int, do func(w *walker, i int) (*Difference, error)) (*Difference, error) {
	var (
		next atomic.Int64
		mu   sync.Mutex
		wg   sync.WaitGroup

		found *Difference
		wrong error
		where atomic.Int64 // of found or wrong: no number above it is of interest
	)
	where.Store(int64(n))
	stop := func(i int64, d *Difference, err error) {
		mu.Lock()
		defer mu.Unlock()
		if i < where.Load() {
			found, wrong = d, err
			where.Store(i)
		}
	}
	work := func() {
		w, err := newWalker(root)
		if err != nil {
			stop(-1, nil, err)
			return
		}
		defer w.close()
		for {
			start := next.Add(block) - block
			for i := start; i < start+block; i++ {
				if i >= where.Load() {
					return
				}
				if d, err := do(w, int(i)); d != nil || err != nil {
					stop(i, d, err)
					return
				}
			}
		}
	}
	for range min(runtime.GOMAXPROCS(0), mostAtOnce, n/block) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return found, wrong
}
