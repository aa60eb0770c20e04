package integration

import (
	"os"
	"path/filepath"
	"testing"
	"fmt"
	"time"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
)

func TestRigTime(t *testing.T) {
	r := newRig(t)
	one := func(i int) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "a"), []byte(fmt.Sprint(i)), 0o644)
	os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM debian:12\nCOPY a /\nRUN apt-get update && apt-get install -y curl\nRUN echo a > b\n"), 0o644)
	s := time.Now()
	im, err := r.build(t.Context(), build{dir: dir, frontend: dockerfile.Build})
	if err != nil { t.Fatal(err) }
	d := time.Since(s)
	s = time.Now()
	_, err = r.build(t.Context(), build{dir: dir, frontend: dockerfile.Build})
	fmt.Println(d, time.Since(s), len(im[""].Tree), err)
	if i == 0 { for p, e := range im[""].Tree { if e.Type == '0' { _ = p } }}
	}
	for i := range 12 { one(i) }
	ch := make(chan bool)
	s := time.Now()
	for k := range 2 { go func() { for i := range 10 { one(100+k*100+i) }; ch <- true }() }
	<-ch; <-ch
	fmt.Println("20 pairs in parallel", time.Since(s))
}
