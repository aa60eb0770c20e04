// Command floor does what no builder can do without, so that a bench can tell how far a builder is from that.
//
// When nothing has changed: start, look at each file of the context once, and ask the registry once whether the image is there. When a file has
// changed: that, and read the file, compress it with zstd, and push a layer, a configuration and a manifest: five requests. It runs no steps, compares
// nothing with what it knew before and has no state, so that it is below what is possible, not at it.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

func main() {
	context := flag.String("context", ".", "directory whose files are looked at")
	image := flag.String("image", "", "HOST/NAME:TAG that is asked for, and pushed; the registry speaks plain http")
	changed := flag.String("changed", "", "file that has changed; none: nothing has")
	flag.Parse()
	if err := run(*context, *image, *changed); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(context, image, changed string) error {
	err := filepath.WalkDir(context, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info() // lstat
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look at the context: %w", err)
	}
	host, rest, _ := strings.Cut(image, "/")
	at := strings.LastIndexByte(rest, ':')
	if at < 0 {
		return fmt.Errorf("-image %s has not the form HOST/NAME:TAG", image)
	}
	r := repository{"http://" + host + "/v2/" + rest[:at]}
	manifest := r.address + "/manifests/" + rest[at+1:]
	if _, err := r.ask(http.MethodHead, manifest, "", nil); err != nil || changed == "" {
		return err
	}
	content, err := os.ReadFile(changed)
	if err != nil {
		return err
	}
	compressor, err := zstd.NewWriter(nil)
	if err != nil {
		return err
	}
	layer, err := r.push("application/vnd.oci.image.layer.v1.tar+zstd", compressor.EncodeAll(content, nil))
	if err != nil {
		return err
	}
	const configType = "application/vnd.oci.image.config.v1+json"
	config, err := r.push(configType, fmt.Appendf(nil, `{"architecture":"none","os":"none","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(content)))
	if err != nil {
		return err
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	_, err = r.ask(http.MethodPut, manifest, manifestType,
		fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, manifestType, config, layer))
	return err
}

// repository is where an image is pushed to.
type repository struct{ address string }

// push sends a blob, in the two requests that all registries understand, and returns its descriptor.
func (r repository) push(mediaType string, blob []byte) (descriptor string, err error) {
	where, err := r.ask(http.MethodPost, r.address+"/blobs/uploads/", "", nil)
	if err != nil {
		return "", err
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
	separator := "?"
	if strings.Contains(where, "?") {
		separator = "&"
	}
	_, err = r.ask(http.MethodPut, where+separator+"digest="+digest, "application/octet-stream", blob)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, len(blob)), err
}

// ask returns where the answer points to, made absolute. An image that is not there is no error.
func (r repository) ask(method, address, mediaType string, body []byte) (location string, err error) {
	q, err := http.NewRequest(method, address, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	if mediaType != "" {
		q.Header.Set("Content-Type", mediaType)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return "", err
	}
	if a.StatusCode >= 300 && (method != http.MethodHead || a.StatusCode != http.StatusNotFound) {
		return "", fmt.Errorf("%s %s: %s: %s", method, address, a.Status, text)
	}
	if where, err := a.Location(); err == nil {
		return where.String(), nil
	}
	return "", nil
}
