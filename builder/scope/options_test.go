package scope

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// TestRoundTrip: what goes into attributes comes out of them, names of all kinds included.
func TestRoundTrip(t *testing.T) {
	for _, o := range []Options{
		{Ref: "registry.example.com/cache", Write: "main"},
		{Ref: "r/c", Write: "a,b", Read: []string{`c"d`, "e,f", " g ", "../h", "main"}},
		{Ref: "r/c", Read: []string{"main"}},
		{Ref: "r/c"},
		{Ref: "r/c", Write: "x", MountsOff: true, Stay: []string{"npm", "a,b"}, MaxAge: 720 * time.Hour, MaxBytes: 20e9, SignFile: "/k,1", TrustFile: "/p=2"},
	} {
		got, err := ParseOptions(o.Attrs())
		if err != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("got  %+v, %v\nwant %+v\nfrom %v", got, err, o, o.Attrs())
		}
	}
}

// TestParseOptions: another client's attributes.
func TestParseOptions(t *testing.T) {
	for _, test := range []struct {
		attrs map[string]string
		want  string
	}{
		{map[string]string{}, "shared cache: attribute ref is missing"},
		{map[string]string{"ref": "r", "scope": "s", "read": "s,a,a"}, "s [a]"},
		{map[string]string{"ref": "r", "scope": "s", "read": "a", "access": "ro"}, " [s a]"},
		{map[string]string{"ref": "r", "access": "rw"}, "shared cache: attribute access=rw is not understood"},
		{map[string]string{"ref": "r", "mode": "min"}, "shared cache: attribute mode=min is not understood"},
		{map[string]string{"ref": "r", "max-age": "0"}, "shared cache: attribute max-age=0 is not understood"},
		{map[string]string{"ref": "r", "max-age": "99999999999"}, "shared cache: attribute max-age=99999999999 is not understood"},
		{map[string]string{"ref": "r", "max-size": "-1"}, "shared cache: attribute max-size=-1 is not understood"},
		{map[string]string{"ref": "r", "mounts": "some"}, "shared cache: attribute mounts=some is not understood"},
		{map[string]string{"ref": "r", "read": `"a`}, `shared cache: attribute read="a is not understood`},
		{map[string]string{"ref": "r", "mounts-off": `"a`}, `shared cache: attribute mounts-off="a is not understood`},
		{map[string]string{"ref": "r", "scoop": "s"}, "shared cache: attribute scoop=s is not understood"},
	} {
		o, err := ParseOptions(test.attrs)
		got := fmt.Sprint(o.Write, " ", o.Read)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%v\ngot  %s\nwant %s", test.attrs, got, test.want)
		}
	}
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "2w": 336 * time.Hour, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "1500ms": time.Second, "3650d": maxAge} {
		if got, err := ParseAge(text); got != want || err != nil {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "30", "d", "-1d", "0d", "0s", "1ms", "-5h", "99999w", "999999999d", "3651d", "month", "1.5d"} {
		if got, err := ParseAge(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
