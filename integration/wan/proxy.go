package wan

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
)

// Counts is what a proxy was asked, by kind. Bytes are those of bodies.
type Counts struct {
	Requests                                  int
	ManifestGets, ManifestHeads, ManifestPuts int
	BlobGets, BlobHeads                       int
	Uploads                                   int // blobs that arrived whole
	Mounts                                    int // blobs that were taken from another repository
	Tokens                                    int
	Others                                    int   // the other requests of uploads among them
	ManifestBytes, BlobBytes                  int64 // to clients
	PushedManifestBytes, PushedBlobBytes      int64 // from clients
	Faults                                    int
}

// Proxy hands requests to a registry, counts them, and injects faults. It may be used concurrently.
//
// It serves tokens at /token, see Expire; what it is mounted in has to route that, too.
type Proxy struct {
	next http.Handler

	mu     sync.Mutex
	counts Counts
	rules  []*counted
	tokens int // which generation of tokens is valid; 0: none is needed
}

// NewProxy returns a proxy without rules.
func NewProxy(next http.Handler) *Proxy { return &Proxy{next: next} }

// Counts returns what was counted since the last Reset.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Reset begins to count anew. What rules have counted is kept.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts = Counts{}
}

// Add adds a rule. Of the rules that apply to a request, the first one does.
func (p *Proxy) Add(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &counted{Rule: r})
}

// Clear removes all rules, and no more wants tokens.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules, p.tokens = nil, 0
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, asked := &counter{ResponseWriter: w}, &countedBody{ReadCloser: r.Body}
	r.Body = asked
	defer func() { p.count(r, answer, asked.bytes) }() // also when a fault panics
	if r.URL.Path == "/token" {
		p.giveToken(answer)
		return
	}
	fault := p.fault(r)
	if fault == nil && !p.admits(r) {
		p.challenge(answer, r)
		return
	}
	if fault == nil {
		p.next.ServeHTTP(answer, r)
		return
	}
	fault.strike(p, answer, r)
}

// counter counts an answer.
type counter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	c.status = cmp.Or(c.status, http.StatusOK)
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

type countedBody struct {
	io.ReadCloser
	bytes int64
}

func (c *countedBody) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.bytes += int64(n)
	return n, err
}

var (
	blobPath     = regexp.MustCompile(`^/v2/(.+)/blobs/(sha256:[0-9a-f]{64})$`)
	manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`)
	uploadPath   = regexp.MustCompile(`^/v2/(.+)/blobs/uploads(?:/([^/]*))?$`)
)

func (p *Proxy) count(r *http.Request, answer *counter, asked int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.counts
	c.Requests++
	kind := &c.Others
	switch path := r.URL.Path; {
	case path == "/token":
		kind = &c.Tokens
	case manifestPath.MatchString(path):
		switch r.Method {
		case http.MethodGet:
			kind = &c.ManifestGets
			c.ManifestBytes += answer.bytes
		case http.MethodHead:
			kind = &c.ManifestHeads
		case http.MethodPut:
			kind = &c.ManifestPuts
			c.PushedManifestBytes += asked
		}
	case uploadPath.MatchString(path):
		c.PushedBlobBytes += asked
		q := r.URL.Query()
		switch {
		case answer.status != http.StatusCreated:
		case q.Has("mount"):
			kind = &c.Mounts
		default:
			kind = &c.Uploads
		}
	case blobPath.MatchString(path):
		switch r.Method {
		case http.MethodGet:
			kind = &c.BlobGets
			c.BlobBytes += answer.bytes
		case http.MethodHead:
			kind = &c.BlobHeads
		}
	}
	*kind++
}

// Tokens are words with the number of their generation, and give nothing but admission.
func (p *Proxy) token() string { return fmt.Sprintf("token-%d", p.tokens) }

func (p *Proxy) giveToken(w http.ResponseWriter) {
	p.mu.Lock()
	token := p.token()
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"token":%q,"access_token":%q,"expires_in":3600}`, token, token)
}

func (p *Proxy) admits(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tokens == 0 || r.Header.Get("Authorization") == "Bearer "+p.token()
}

// challenge tells a client where it gets a token, and that the one that it has, if it has one, is not valid.
func (p *Proxy) challenge(w http.ResponseWriter, r *http.Request) {
	scope := ""
	for _, path := range []*regexp.Regexp{blobPath, manifestPath, uploadPath} {
		if m := path.FindStringSubmatch(r.URL.Path); m != nil {
			scope = fmt.Sprintf(",scope=\"repository:%s:pull,push\"", m[1])
		}
	}
	message, why := "a token is needed", ""
	if r.Header.Get("Authorization") != "" {
		message, why = "the token has expired", `,error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=\"http://%s/token\",service=\"test\"%s%s", r.Host, scope, why))
	writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", message)
}

// writeError answers with an error of the registry API.
func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}
