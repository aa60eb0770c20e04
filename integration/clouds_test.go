package integration

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
)

// Keys for the clouds that tests talk to. They check who asks, but not what was signed.
const (
	s3KeyID      = "TESTKEY"
	azureAccount = "testaccount"
	cloudKey     = "dGVzdA=="
)

// azureBlobs is Azure's blob storage of one account.
func azureBlobs() http.Handler {
	blobs := &actionstest.Blobs{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey "+azureAccount+":") {
			http.Error(w, "AuthenticationFailed", http.StatusForbidden)
			return
		}
		if strings.HasSuffix(r.URL.Path, hugeIndex) {
			sendHuge(w)
			return
		}
		blobs.ServeHTTP(w, r)
	})
}

// hugeIndex is an index that both clouds have: sendHuge sends it.
const hugeIndex = "/manifests/huge"

// sendHuge sends an index that is right, but for its 256 MiB.
func sendHuge(w io.Writer) {
	_, err := io.WriteString(w, "{}")
	for i, spaces := 0, bytes.Repeat([]byte(" "), 1<<20); i < 256 && err == nil; i++ {
		_, err = w.Write(spaces)
	}
}

// s3Bucket is an S3 with one bucket, whose name is in the path: objects are put whole or in parts, looked for, and read from anywhere on.
type s3Bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	uploads map[string]map[int][]byte
}

func newS3Bucket() *s3Bucket {
	return &s3Bucket{objects: map[string][]byte{}, uploads: map[string]map[int][]byte{}}
}

func (b *s3Bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/bucket/")
	q := r.URL.Query()
	switch {
	case !strings.Contains(r.Header.Get("Authorization"), "Credential="+s3KeyID+"/"):
		refuse(http.StatusForbidden, "InvalidAccessKeyId")
	case !ok:
		refuse(http.StatusNotFound, "NoSuchBucket")
	case strings.HasSuffix(r.URL.Path, hugeIndex):
		sendHuge(w)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		data, ok := b.objects[key]
		if !ok {
			refuse(http.StatusNotFound, "NoSuchKey")
			return
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "", time.Now(), bytes.NewReader(data))
	case r.Method == http.MethodPost && q.Has("uploads"):
		id := strconv.Itoa(len(b.uploads) + 1)
		b.uploads[id] = map[int][]byte{}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case r.Method == http.MethodPost && b.uploads[q.Get("uploadId")] != nil:
		var list struct {
			Part []struct{ PartNumber int }
		}
		if err := xml.NewDecoder(r.Body).Decode(&list); err != nil {
			refuse(http.StatusBadRequest, "MalformedXML")
			return
		}
		var all []byte
		for _, p := range list.Part {
			all = append(all, b.uploads[q.Get("uploadId")][p.PartNumber]...)
		}
		b.objects[key] = all
		fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
	case r.Method == http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil || strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
			refuse(http.StatusNotImplemented, "NotImplemented")
			return
		}
		w.Header().Set("ETag", `"1"`)
		if parts := b.uploads[q.Get("uploadId")]; parts != nil {
			n, _ := strconv.Atoi(q.Get("partNumber"))
			parts[n] = data
			return
		}
		b.objects[key] = data
	default:
		refuse(http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}
