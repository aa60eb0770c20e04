package outcome

import (
	"fmt"
	"testing"
)

func TestSharedCode(t *testing.T) {
	stages, err := ReadShared([]byte(`[{"stage": "web", "by": "asked", "copies": ["COPY /web /web"]}, {"stage": "modules", "by": "lock", "copies": ["COPY"]}]`))
	if err != nil || len(stages) != 2 {
		t.Fatal(stages, err)
	}
	asked, lock := stages[0], stages[1]
	for step, want := range map[string][2]bool{
		"COPY /web /web":  {true, true},
		"COPY /web /web2": {false, true},
		"ADD a /":         {false, false},
		"RUN cp":          {false, false},
		"":                {true, true}, // not known
	} {
		if got := [2]bool{asked.Made(step), lock.Made(step)}; got != want {
			t.Errorf("%q: made by asked, lock: %v, want %v", step, got, want)
		}
	}
	f := ForeignProgram{Platform: "linux/arm64", Architecture: "amd64", Paths: []string{"/web/a.so"}, Step: "COPY /web /web"}
	const text = "the image for linux/arm64 has programs for amd64: /web/a.so, made by COPY /web /web: stage web ran once for all platforms, and what is copied from it is not the same for all: build without --share-stage web"
	if got := (&SharedCodeError{f, asked}).Error(); got != text {
		t.Errorf("got  %s\nwant %s", got, text)
	}
	if IsSharedCode(&SharedCodeError{f, asked}) || IsSharedCode(nil) {
		t.Error("what was asked for is built again without being asked")
	}
	if !IsSharedCode(fmt.Errorf("failed to solve: %w", &SharedCodeError{f, lock})) {
		t.Error("what was not asked for is an error")
	}
	if _, err := ReadShared([]byte("{")); err == nil {
		t.Error("half a list is read")
	}
	if list, err := ReadShared(nil); list != nil || err != nil {
		t.Error(list, err)
	}
}
