package replay

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestKeepsTimes(t *testing.T) {
	const go1, npm = "676f", "6e706d"
	for _, test := range []struct {
		name string
		runs string // after COPY 7 was made: id:layers
		want bool
	}{
		{"nothing ran", "", true},
		{"over it", go1 + ":9,7,1", true},
		{"over it, and over another one", go1 + ":9,7,1 " + go1 + ":8,1", false},
		{"over another one, and over it", go1 + ":8,1 " + go1 + ":9,7,1", false},
		{"over what nobody knows", go1 + ":9,7,1 " + go1 + ":", false},
		{"over another one, with another mount", go1 + ":9,7,1 " + npm + ":8,1", true},
		{"both mounts, each over its own", go1 + ":9,7,1 " + npm + ":8,1 " + npm + ":8,2", true},
		{"not over it, ever", go1 + ":8,1", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &Replayer{log: filepath.Join(t.TempDir(), "log")}
			_, seventh, err := r.keepsTimes(lastCopy{}, "7")
			if err != nil {
				t.Fatal(err)
			}
			for _, run := range strings.Fields(test.runs) {
				id, layers, _ := strings.Cut(run, ":")
				r.note([]string{id}, strings.Split(layers, ","))
			}
			seventh = parseLast([]byte(seventh.String()))
			got, next, err := r.keepsTimes(seventh, "77")
			if err != nil || got != test.want {
				t.Errorf("keeps times: %v, %v, want %v", got, err, test.want)
			}
			// What mounts it is about is known of its successor, which nothing has run over yet.
			r.note([]string{go1}, []string{"8", "1"})
			got, _, err = r.keepsTimes(next, "777")
			if want := !strings.Contains(test.runs, "7,"); err != nil || got != want {
				t.Errorf("after a run over another one, the next: %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestKeepsTimesForgotten(t *testing.T) {
	r := &Replayer{log: filepath.Join(t.TempDir(), "log")}
	_, last, err := r.keepsTimes(lastCopy{}, "7")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.note([]string{"676f"}, []string{strings.Repeat("7", maxLog/2)})
	}
	switch keeps, next, err := r.keepsTimes(last, "77"); {
	case err != nil:
		t.Fatal(err)
	case keeps:
		t.Error("times are kept, and nobody knows what ran")
	case next.at.log == last.at.log:
		t.Error("the log has the name of the old one")
	}
	for _, stored := range []string{"", "7", "7 log=x", "7 log=x length=y", "7 length=99999999", "\x00"} {
		if keeps, _, err := r.keepsTimes(parseLast([]byte(stored)), "77"); keeps || err != nil {
			t.Errorf("%q: times are kept (%v)", stored, err)
		}
	}
}
