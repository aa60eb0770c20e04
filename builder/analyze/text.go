package analyze

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// Text writes a report for people. width is that of the terminal; longer lines of the history are cut. 0 cuts nothing.
func Text(w io.Writer, r *Report, width int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s\n\n", printable(r.Image), r.Platform, r.Digest)
	t := table{width: width, numbers: 5}
	t.row("#", "STORED", "UNPACKED", "WASTED", "FILES", "INSTRUCTION")
	for _, e := range r.History {
		if e.Layer == "" {
			t.row(fmt.Sprint(e.Number), "", "", "", "", printable(e.Instruction))
		} else {
			t.row(fmt.Sprint(e.Number), size(e.Bytes), size(e.UnpackedBytes), some(e.WastedBytes), fmt.Sprint(e.Files), printable(e.Instruction))
		}
		if note := e.note(); note != "" {
			t.row("", "", "", "", "", "  "+note)
		}
	}
	t.row("", size(r.Bytes), size(r.UnpackedBytes), some(r.WastedBytes), fmt.Sprint(r.Files), "in "+count(r.Layers, "layer", "layers"))
	t.write(&b)
	b.WriteByte('\n')
	for _, line := range r.Summary() {
		fmt.Fprintln(&b, line)
	}
	if len(r.Wasted) > 0 {
		fmt.Fprintf(&b, "\nwasted: in a layer, and not in the image's files\n")
		t := table{width: width, numbers: 2}
		t.row("BYTES", "#", "PATH", "WHY")
		for _, x := range r.Wasted {
			t.row(size(x.Bytes), fmt.Sprint(x.Entry), printable(x.Path), x.Why())
		}
		t.write(&b)
	}
	if len(r.Largest) > 0 {
		fmt.Fprintf(&b, "\nlargest files\n")
		t := table{width: width, numbers: 2}
		t.row("BYTES", "#", "PATH")
		for _, f := range r.Largest {
			t.row(size(f.Bytes), fmt.Sprint(f.Entry), printable(f.Path))
		}
		t.write(&b)
	}
	if len(r.Equal) > 0 {
		fmt.Fprintf(&b, "\nfiles with the same content\n")
		t := table{width: width, numbers: 2}
		t.row("BYTES", "TIMES", "PATHS")
		for _, x := range r.Equal {
			t.row(size(x.Bytes), fmt.Sprint(len(x.Paths)), printable(strings.Join(first(x.Paths, pathsShown), "  "))+x.more())
		}
		t.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// pathsShown bounds how many of equal files are named; JSON has them all.
const pathsShown = 3

func (x Equal) more() string {
	if n := len(x.Paths) - pathsShown; n > 0 {
		return fmt.Sprintf("  and %d more", n)
	}
	return ""
}

// Summary is what there is to say in lines.
func (r *Report) Summary() (lines []string) {
	if r.WastedBytes > 0 {
		lines = append(lines, fmt.Sprintf("waste: %s of %s (%.1f %%), in %s that a later layer replaces or deletes",
			size(r.WastedBytes), size(r.UnpackedBytes), r.WastedPercent, count(r.WastedFiles, "file", "files")))
	} else {
		lines = append(lines, "waste: none")
	}
	if r.EqualBytes > 0 {
		lines = append(lines, fmt.Sprintf("equal: %s would be saved if each content were there once", size(r.EqualBytes)))
	}
	if r.StrippedBytes > 0 {
		lines = append(lines, fmt.Sprintf("stripped: %s left out by the export", size(r.StrippedBytes)))
	}
	return lines
}

// note is what is to say of an entry besides its instruction.
func (e Entry) note() string { return printable(e.Comment) }

// Why says in words how a file was wasted.
func (x Wasted) Why() string {
	switch x.Kind {
	case Overwritten:
		return fmt.Sprintf("overwritten by #%d", x.By)
	case Copied:
		if len(x.Changed) == 0 {
			return fmt.Sprintf("copied again, unchanged, by #%d", x.By)
		}
		return fmt.Sprintf("copied again by #%d: %s changed", x.By, strings.Join(x.Changed, ", "))
	case Deleted:
		return fmt.Sprintf("deleted by #%d", x.By)
	case Repeated:
		return "twice in the layer"
	}
	return string(x.Kind)
}

func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// some is a size, or nothing for none.
func some(n int64) string {
	if n == 0 {
		return "-"
	}
	return size(n)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// printable keeps what an image says from writing anywhere else on a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// table lines up columns: numbers to the right, up to a number of columns, the rest to the left. The last column may be cut.
type table struct {
	width, numbers int
	rows           [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.rows[0]))
	for _, r := range t.rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range t.rows {
		var line strings.Builder
		for i, cell := range r {
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < t.numbers {
				line.WriteString(fill + cell + "  ")
			} else {
				line.WriteString(cell + fill + "  ")
			}
		}
		text := []rune(strings.TrimRight(line.String(), " "))
		if t.width > 3 && len(text) > t.width {
			text = append(text[:t.width-1], '…')
		}
		fmt.Fprintln(w, string(text))
	}
}
