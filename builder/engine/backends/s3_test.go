//go:build optbuild_s3

package backends

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/cache/remotecache/s3"

	"github.com/optbuild/optbuild/builder/engine/chains/chainstest"
)

func addS3Cloud(list map[string]cloud) {
	list["s3"] = cloud{
		attrs: func(url string) map[string]string {
			return map[string]string{"bucket": "bucket", "region": "here", "use_path_style": "true", "endpoint_url": url, "access_key_id": "id", "secret_access_key": "key", "prefix": "p/", "name": "n"}
		},
		store:    func() http.Handler { return &objects{byPath: map[string][]byte{}} },
		buildkit: s3.ResolveCacheImporterFunc(),
	}
}

// objects is an S3 whose objects are put whole.
type objects struct {
	mu     sync.Mutex
	byPath map[string][]byte
}

func (o *objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		o.byPath[r.URL.Path] = data
		return
	}
	data, ok := o.byPath[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<Error><Code>NoSuchKey</Code></Error>")
		return
	}
	http.ServeContent(w, r, "", time.Now(), bytes.NewReader(data))
}

// TestS3Attributes: what is wrong is said, not taken for what it is not.
func TestS3Attributes(t *testing.T) {
	for value, want := range map[string]string{
		"retry_mode=never":     "cache type=s3: retry_mode=never is not standard or adaptive",
		"retry_max_attempts=0": "cache type=s3: retry_max_attempts=0 is no number above 0",
	} {
		attrs := clouds()["s3"].attrs("http://localhost")
		key, v, _ := bytes.Cut([]byte(value), []byte("="))
		attrs[string(key)] = string(v)
		if _, _, err := importS3(chainstest.Anything)(t.Context(), nil, attrs); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", value, err, want)
		}
	}
}
