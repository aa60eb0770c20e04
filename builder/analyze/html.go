package analyze

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
)

var (
	//go:embed page.tmpl
	pageSource string
	//go:embed page.css
	pageStyle string
)

// page is what the template shows.
type page struct {
	*Report
	Lines  []string
	Policy string // what a browser may load: this page's own style
	Style  template.CSS
	Rows   []pageRow
}

// pageRow is an entry with its bars, in percent of the widest layer.
type pageRow struct {
	Entry
	Note       string
	Used, Lost float64
}

// HTML writes one page that stands alone: the history with a bar for each layer, and the lists. It has no script.
func HTML(w io.Writer, r *Report) error {
	t, err := template.New("page").Funcs(template.FuncMap{"size": size, "some": some, "count": count}).Parse(pageSource)
	if err != nil {
		return fmt.Errorf("parse the page's template: %w", err)
	}
	sum := sha256.Sum256([]byte(pageStyle))
	p := page{
		Report: r, Lines: r.Summary(), Style: template.CSS(pageStyle),
		Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
	}
	widest := int64(1)
	for _, e := range r.History {
		widest = max(widest, e.UnpackedBytes)
	}
	for _, e := range r.History {
		share := func(n int64) float64 { return float64(n*1000/widest) / 10 }
		p.Rows = append(p.Rows, pageRow{Entry: e, Note: e.note(), Used: share(e.UnpackedBytes - e.WastedBytes), Lost: share(e.WastedBytes)})
	}
	return t.Execute(w, p)
}
