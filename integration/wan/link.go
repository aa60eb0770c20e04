// Package wan is a registry as a cold CI runner sees it: far away, and not always well.
//
// What comes in is an http.Handler, mostly a Store; what goes out is the same on an address of its own, with three things in between.
//
//	client ── Link ── Proxy ── Store
//	          rate,    counts,  blobs by repository,
//	          latency  faults   mounts, ranges
//
// A Link is one runner's connection to the world: everything that listens through it shares its rate. It knows nothing of http. A Proxy counts
// requests by kind and injects faults where Rules say so; the n-th request that a rule matches always gets the same. A Store is a registry that, other
// than go-containerregistry's, does not show one repository's blobs in another.
//
// It is made in this process, and not of network namespaces with tc: netem, which makes latency, is missing in many kernels, and ordinary users
// may not configure it. What it does not model: TCP's slow start, losses, TLS handshakes. It measures payload, so headers of
// TCP and IP (4 %) are not in its rate.
package wan

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Profile is what a link is like. The zero value is as fast as this machine.
type Profile struct {
	BitsPerSecond int64         // in each direction; 0: no bound
	RoundTrip     time.Duration // half of it each way; opening a connection takes one
}

// Runner is the link of a CI runner, on which the project's goals are stated.
var Runner = Profile{BitsPerSecond: 100e6, RoundTrip: 20 * time.Millisecond}

const (
	// packet is the most that is sent in one go: what a small answer waits for when others download.
	packet = 16 << 10
	// inFlight is how many packets may be on their way in one connection: 4 MiB, enough for a round trip of 300 ms at 100 Mbit/s.
	inFlight = 256
	// farewell bounds how long a client is listened to that nobody hears any more.
	farewell = 2 * time.Second
	// slack is how much of its idle time a link makes up for, so that a late wake-up of this process costs no throughput.
	slack = 5 * time.Millisecond
)

// Traffic is what has passed a link, as the client sees it, in bytes of payload.
type Traffic struct {
	Connections    int64
	Received, Sent int64
}

// Link carries connections at a rate, and late. It may be used concurrently.
type Link struct {
	connections atomic.Int64
	roundTrip   atomic.Int64 // nanoseconds
	down, up    direction
}

// direction is one way over a link, which all of its connections share.
type direction struct {
	limiter *rate.Limiter
	bytes   atomic.Int64 // that have arrived
}

// NewLink returns a link without connections.
func NewLink(p Profile) *Link {
	l := &Link{down: direction{limiter: rate.NewLimiter(rate.Inf, packet)}, up: direction{limiter: rate.NewLimiter(rate.Inf, packet)}}
	l.Set(p)
	return l
}

// Set changes what the link is like, also for connections that there are.
func (l *Link) Set(p Profile) {
	l.roundTrip.Store(int64(p.RoundTrip))
	bytes, burst := rate.Inf, packet
	if p.BitsPerSecond > 0 {
		bytes = rate.Limit(p.BitsPerSecond) / 8
		burst = max(burst, int(float64(bytes)*slack.Seconds()))
	}
	for _, d := range []*direction{&l.down, &l.up} {
		d.limiter.SetBurst(burst)
		d.limiter.SetLimit(bytes)
	}
}

// Traffic returns what has passed since the last Reset.
func (l *Link) Traffic() Traffic {
	return Traffic{Connections: l.connections.Load(), Received: l.down.bytes.Load(), Sent: l.up.bytes.Load()}
}

// Reset begins to count anew.
func (l *Link) Reset() {
	l.connections.Store(0)
	l.down.bytes.Store(0)
	l.up.bytes.Store(0)
}

// Listen returns a listener whose connections, those that ln accepts, go over the link.
func (l *Link) Listen(ln net.Listener) net.Listener { return &listener{ln, l} }

type listener struct {
	net.Listener
	link *Link
}

func (n *listener) Accept() (net.Conn, error) {
	client, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return n.link.carry(client), nil
}

// end is the server's end of a connection over a link.
type end struct {
	net.Conn
	client net.Conn
	broken atomic.Bool
}

func (e *end) RemoteAddr() net.Addr { return e.client.RemoteAddr() }
func (e *end) LocalAddr() net.Addr  { return e.client.LocalAddr() }

// breakOff closes the connection so that the client, after what was written, gets a reset in place of an end.
func (e *end) breakOff() {
	e.broken.Store(true)
	e.Close()
}

// carry gives a client's connection its way over the link and returns the server's end. A pipe, other than a second TCP connection, lets all arrive
// that a server wrote before it closed or broke off. What carries ends with either end.
func (l *Link) carry(client net.Conn) net.Conn {
	l.connections.Add(1)
	near, far := net.Pipe()
	e := &end{Conn: far, client: client}
	over := make(chan struct{})
	// A client has to wait for a round trip before it may send.
	opened := time.Now().Add(time.Duration(l.roundTrip.Load()))
	go func() {
		l.pump(near, client, &l.up, opened, over)
		near.Close()
	}()
	go func() {
		l.pump(client, near, &l.down, opened, over)
		near.Close()
		close(over)
		hangUp(client, e.broken.Load())
	}()
	return e
}

// hangUp closes a client's connection: with a reset, or so that the client sees what it was sent even if it still sends itself, as http.Server does with
// connections that it knows.
func hangUp(client net.Conn, broken bool) {
	defer client.Close()
	c, ok := client.(*net.TCPConn)
	switch {
	case !ok:
	case broken:
		_ = c.SetLinger(0)
	case c.CloseWrite() == nil:
		_ = c.SetReadDeadline(time.Now().Add(farewell))
		_, _ = io.Copy(io.Discard, c)
	}
}

// travelling is a packet on its way.
type travelling struct {
	bytes   []byte
	arrives time.Time
}

// pump carries what comes from src to dst until either ends, or over is closed. One packet of a connection waits for room at a time: connections share
// the link fairly, and a small answer does not queue up behind all that others have to send.
func (l *Link) pump(dst io.Writer, src io.Reader, d *direction, opened time.Time, over <-chan struct{}) {
	queue, failed := make(chan travelling, inFlight), make(chan struct{})
	go func() {
		defer close(queue)
		for {
			b := make([]byte, packet)
			n, err := src.Read(b)
			if n > 0 {
				if !wait(opened, over) {
					return
				}
				now := time.Now()
				left := now.Add(d.limiter.ReserveN(now, n).DelayFrom(now))
				if !wait(left, over) {
					return
				}
				select {
				case queue <- travelling{b[:n], left.Add(time.Duration(l.roundTrip.Load()) / 2)}:
				case <-failed:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for t := range queue {
		if !wait(t.arrives, over) {
			break
		}
		d.bytes.Add(int64(len(t.bytes))) // before: who has read them may look at the count at once
		if n, err := dst.Write(t.bytes); err != nil {
			d.bytes.Add(int64(n - len(t.bytes)))
			break
		}
	}
	close(failed)
}

// wait returns false when over was closed before the time came.
func wait(until time.Time, over <-chan struct{}) bool {
	d := time.Until(until)
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-over:
		return false
	}
}
