package wan

import (
	"io"
	"log"
	"net"
	"net/http"
)

// Registry is a handler behind a link and a proxy, on an address of its own on loopback. Two of them on one Store are two runners.
type Registry struct {
	Addr string
	*Link
	*Proxy
	http *http.Server
}

// Serve listens until Close.
func Serve(next http.Handler, p Profile) (*Registry, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: ln.Addr().String(), Link: NewLink(p), Proxy: NewProxy(next)}
	r.http = &http.Server{Handler: r.Proxy, ErrorLog: log.New(io.Discard, "", 0)}
	go r.http.Serve(r.Listen(ln))
	return r, nil
}

// Reset begins to count anew.
func (r *Registry) Reset() {
	r.Link.Reset()
	r.Proxy.Reset()
}

// Close ends all connections.
func (r *Registry) Close() error { return r.http.Close() }
