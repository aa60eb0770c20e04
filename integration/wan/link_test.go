package wan

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network without a kernel, for time that the tests make.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.accepted <- server
	return client, nil
}

// overLink runs f in a bubble with a client of a server on a link. The server gives /N a body of N bytes, and reads what it is sent.
func overLink(t *testing.T, p Profile, f func(t *testing.T, l *Link, c *http.Client)) {
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
		l := NewLink(p)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			n, _ := strconv.Atoi(r.URL.Path[1:])
			w.Header().Set("Content-Length", strconv.Itoa(n))
			_, _ = w.Write(make([]byte, n))
		})}
		go s.Serve(l.Listen(network))
		transport := &http.Transport{DialContext: network.dial}
		f(t, l, &http.Client{Transport: transport})
		transport.CloseIdleConnections()
		s.Close()
		synctest.Wait()
	})
}

func fetch(t *testing.T, c *http.Client, size int) {
	t.Helper()
	resp, err := c.Get("http://test/" + strconv.Itoa(size))
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != int64(size) || err != nil {
		t.Errorf("got %d bytes (%v), want %d", n, err, size)
	}
}

// within fails when what f takes, in the bubble's time, is not what it should take.
func within(t *testing.T, what string, want time.Duration, percent float64, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	got := time.Since(begin)
	if off := 100 * float64(got-want) / float64(want); off < -percent || off > percent {
		t.Errorf("%s took %v, want %v: %.1f %% off", what, got, want, off)
	}
}

func TestRate(t *testing.T) {
	overLink(t, Runner, func(t *testing.T, l *Link, c *http.Client) {
		const size = 50_000_000
		within(t, "50 MB", 4*time.Second, 2, func() { fetch(t, c, size) })
		if got := l.Traffic().Received; got < size || got > size+1000 {
			t.Errorf("counted %d bytes, want %d and headers", got, size)
		}
		within(t, "50 MB on five connections", 4*time.Second, 2, func() {
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() { fetch(t, c, size/5) })
			}
			all.Wait()
		})
		l.Reset()
		within(t, "50 MB the other way", 4*time.Second, 2, func() {
			resp, err := c.Post("http://test/0", "", io.LimitReader(zeros{}, size))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		})
		if got := l.Traffic(); got.Sent < size || got.Sent > size+50_000 || got.Received > 1000 { // chunked
			t.Errorf("counted %+v, want %d bytes sent", got, size)
		}
		within(t, "50 MB both ways at once", 4*time.Second, 2, func() {
			var all sync.WaitGroup
			all.Go(func() { fetch(t, c, size) })
			all.Go(func() {
				resp, err := c.Post("http://test/0", "", io.LimitReader(zeros{}, size))
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
			})
			all.Wait()
		})
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestLatency(t *testing.T) {
	overLink(t, Runner, func(t *testing.T, l *Link, c *http.Client) {
		within(t, "the first request, with its connection", 40*time.Millisecond, 1, func() { fetch(t, c, 10) })
		within(t, "ten more", 200*time.Millisecond, 1, func() {
			for range 10 {
				fetch(t, c, 10)
			}
		})
		if n := l.Traffic().Connections; n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
		// While others download, a small answer waits for a packet of each.
		var others sync.WaitGroup
		for range 4 {
			others.Go(func() { fetch(t, c, 25_000_000) })
		}
		time.Sleep(time.Second) // in the bubble
		fetch(t, c, 10)         // a connection of its own
		within(t, "a small answer beside four large ones", 25*time.Millisecond, 25, func() { fetch(t, c, 10) })
		others.Wait()
	})
}

func TestSetWhileConnected(t *testing.T) {
	overLink(t, Profile{}, func(t *testing.T, l *Link, c *http.Client) {
		begin := time.Now()
		fetch(t, c, 50_000_000)
		if d := time.Since(begin); d != 0 {
			t.Errorf("without a bound it took %v", d)
		}
		l.Set(Profile{BitsPerSecond: 8e6, RoundTrip: time.Second})
		within(t, "5 MB at 8 Mbit/s", 6*time.Second, 2, func() { fetch(t, c, 5_000_000) })
	})
}

// Not a test: it takes as long as it takes. It says how far the real clock is off; on a busy machine, too.
func BenchmarkRunner(b *testing.B) {
	r, err := Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		_, _ = w.Write(make([]byte, n))
	}), Runner)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	get := func(size int) time.Duration {
		begin := time.Now()
		resp, err := http.Get("http://" + r.Addr + "/" + strconv.Itoa(size))
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	const size = 50_000_000
	get(10)
	for b.Loop() {
		b.ReportMetric(8*size/1e6/get(size).Seconds(), "Mbit/s")
		b.ReportMetric(float64(get(10).Microseconds())/1000, "ms/request")
	}
}
