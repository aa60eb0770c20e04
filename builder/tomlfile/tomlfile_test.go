package tomlfile

import "testing"

func TestDecode(t *testing.T) {
	for text, want := range map[string]struct {
		line int
		err  string
	}{
		"":                      {0, ""},
		"size = 3\n":            {0, ""},
		"# x\nsiez = 3\n":       {2, `unknown key "siez"`},
		"[part]\nsize = 3\n":    {1, `unknown key "part"`},
		"size = 3\n\nsize = \n": {3, "unexpected character U+000A at start of value"},
		"size = \"three\"\n":    {1, "cannot decode TOML string into struct field tomlfile.settings.Size of type int"},
	} {
		type settings struct {
			Size int `toml:"size"`
		}
		var s settings
		line, err := Decode([]byte(text), &s)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if line != want.line || got != want.err {
			t.Errorf("%q: line %d, %q; want line %d, %q", text, line, got, want.line, want.err)
		}
	}
}
