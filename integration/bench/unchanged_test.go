package main

import (
	"testing"
	"time"
)

func TestBeyondSolve(t *testing.T) {
	const progress = `{"vertexes":[{"name":"COPY . .","started":"2026-01-02T03:04:05Z"}]}
{"vertexes":[{"name":"COPY . .","completed":"2026-01-02T03:04:05.5Z"},{"name":"FROM x","completed":"2026-01-02T03:04:05.1Z"}]}
{"vertexes":[{"name":"exporting to image","started":"2026-01-02T03:04:05.6Z"}],"statuses":[{"id":"exporting layers"}]}
{"vertexes":[{"name":"exporting to image","completed":"2026-01-02T03:04:05.7Z"}]}
{"vertexes":[{"name":"exporting to image","completed":"2026-01-02T03:04:06Z"}]}
optbuild: layers: 2 became 1
`
	if got, err := beyondSolve([]byte(progress)); got != 500*time.Millisecond || err != nil {
		t.Errorf("%v, %v; want 500ms", got, err)
	}
	if _, err := beyondSolve([]byte("{\"vertexes\":[{\"name\":\"FROM x\",\"completed\":\"2026-01-02T03:04:05Z\"}]}\n")); err == nil {
		t.Error("nothing was exported, and that is no error")
	}
}
