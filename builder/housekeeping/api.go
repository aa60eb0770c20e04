package housekeeping

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/cache"
)

// PruneRequest says what to remove from a cache.
type PruneRequest struct {
	// All removes also what images share, and what is internal to BuildKit (such as external frontends).
	All bool `json:"all"`
	// Unused keeps what was used in so long a time before now.
	Unused time.Duration `json:"unused"`
	// Filters are BuildKit's; a record that matches one of them may go.
	Filters []string `json:"filters,omitempty"`
	// Keep, if not 0, ends the removal when the cache takes so many bytes on disk; what was unused longest goes first.
	Keep int64 `json:"keep,omitempty"`
}

// Pruned is what came of it.
type Pruned struct {
	Removed []cache.Record `json:"removed"`
	// FreedBytes is by how much what the cache takes on disk became less.
	FreedBytes int64 `json:"freedBytes"`
}

// Serve answers requests until ln is closed.
func (k *Keeper) Serve(ln net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /usage", func(w http.ResponseWriter, r *http.Request) {
		u, err := k.usage(r.Context())
		answer(w, u, err)
	})
	mux.HandleFunc("POST /prune", func(w http.ResponseWriter, r *http.Request) {
		var req PruneRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			answer(w, nil, err)
			return
		}
		p, err := k.prune(r.Context(), req)
		answer(w, p, err)
	})
	_ = http.Serve(ln, mux)
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

func (k *Keeper) prune(ctx context.Context, req PruneRequest) (p Pruned, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, err := k.engine.DiskUsage(ctx)
	if err != nil {
		return p, err
	}
	records, err := k.engine.Records(ctx)
	if err != nil {
		return p, err
	}
	types := map[string]string{} // BuildKit does not tell the type of what it removes
	for _, r := range records {
		types[r.ID] = r.Type
	}
	removed := func(r cache.Record) {
		r.Type = types[r.ID]
		p.Removed = append(p.Removed, r)
	}
	if req.Keep > 0 {
		_, err = k.shrink(ctx, cache.Limit{Bytes: req.Keep}, func(bool) bool { return true }, removed)
	} else {
		err = k.engine.Prune(ctx, removed, client.PruneInfo{All: req.All, Filter: req.Filters, KeepDuration: req.Unused})
		if err == nil {
			err = k.engine.CollectGarbage(ctx)
		}
	}
	if err != nil {
		return p, err
	}
	after, err := k.engine.DiskUsage(ctx)
	p.FreedBytes = max(0, before.Total-after.Total)
	return p, err
}

// Client asks a keeper over connections that dial makes.
type Client struct {
	http http.Client
}

// NewClient returns a client; dial connects to the listener that a keeper serves.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}}
}

// Usage measures the cache.
func (c *Client) Usage(ctx context.Context) (u cache.Usage, err error) {
	return u, c.do(ctx, http.MethodGet, "/usage", nil, &u)
}

// Prune removes from the cache.
func (c *Client) Prune(ctx context.Context, req PruneRequest) (p Pruned, err error) {
	return p, c.do(ctx, http.MethodPost, "/prune", req, &p)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://optbuild"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		msg, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("ask the engine: %s", strings.TrimSpace(string(msg)))
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
