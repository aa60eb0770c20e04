package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/templates"
)

// printRows writes a listing as docker's --format says: "" or "table" is the given table, "table TEMPLATE" one with other
// columns, "json" an object for each row, and anything else a Go template for each row. The headings are a row as well.
func printRows[T any](w io.Writer, format, table string, headings T, rows []T) error {
	format = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	switch rest, isTable := strings.CutPrefix(format, "table"); {
	case format == "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for _, r := range rows {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	case isTable || format == "":
		if rest = strings.TrimSpace(rest); rest == "" {
			rest = table
		}
		tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
		header, err := templates.New("").Funcs(templates.HeaderFunctions).Parse(rest + "\n")
		if err != nil {
			return formatError(err)
		}
		if err := header.Execute(tw, headings); err != nil {
			return formatError(err)
		}
		if err := printTemplate(tw, rest, rows); err != nil {
			return err
		}
		return tw.Flush()
	}
	return printTemplate(w, format, rows)
}

// printTemplate writes a line for each value.
func printTemplate[T any](w io.Writer, format string, values []T) error {
	t, err := templates.Parse(format)
	if err != nil {
		return formatError(err)
	}
	t = t.Option("missingkey=error")
	for _, v := range values {
		var line bytes.Buffer
		if err := t.Execute(&line, v); err != nil {
			return formatError(err)
		}
		if _, err := fmt.Fprintln(w, line.String()); err != nil {
			return err
		}
	}
	return nil
}

func formatError(err error) error { return usagef("--format: %w", err) }

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	return enc.Encode(v)
}
