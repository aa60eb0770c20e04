package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRegressions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recorded.jsonl")
	if last, err := readRecorded(path); len(last) != 0 || err != nil {
		t.Errorf("without a file: %v, %v", last, err)
	}
	entries := invented()
	if err := addRecorded(path, entries); err != nil {
		t.Fatal(err)
	}
	last, err := readRecorded(path)
	if err != nil {
		t.Fatal(err)
	}
	if list := regressions(last, entries); len(list) != 0 {
		t.Errorf("the same results again are regressions: %+v", list)
	}
	slower := func(factor float64) []entry {
		now := invented()
		for i, b := range now[0].Builds {
			if b.Side == subject {
				now[0].Builds[i].Seconds *= factor
			}
		}
		now[0].Results = compare("S3 W1", now[0].Builds, nil)
		return now
	}
	if list := regressions(last, slower(1.05)); len(list) != 0 {
		t.Errorf("5 %% more are a regression: %+v", list)
	}
	list := regressions(last, slower(1.3))
	if len(list) != 2 { // against stock, and against the floor
		t.Fatalf("30 %% more: %+v", list)
	}
	var out bytes.Buffer
	printRegressions(&out, list[:1])
	if want := "regression: S3 W1, time against stock/by-hand: 0.65, 0.65–0.65; it was 0.50 on 2026-01-02 ("; !strings.HasPrefix(out.String(), want) {
		t.Errorf("printed %s\nwant %s...", out.String(), want)
	}
	// What was recorded last counts.
	if err := addRecorded(path, slower(1.3)); err != nil {
		t.Fatal(err)
	}
	if last, err = readRecorded(path); err != nil {
		t.Fatal(err)
	}
	if list := regressions(last, slower(1.35)); len(list) != 0 {
		t.Errorf("a little more than the last time: %+v", list)
	}
	mixed := invented()
	mixed[1].Binaries = "others"
	if err := addRecorded(path, mixed); err == nil {
		t.Error("results of two binaries were recorded as those of one")
	}
}

func TestRecordedTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recorded.jsonl")
	var out bytes.Buffer
	if err := printRecorded(&out, path); err == nil {
		t.Error("a table of nothing is no error")
	}
	if err := addRecorded(path, invented()); err != nil {
		t.Fatal(err)
	}
	if err := printRecorded(&out, path); err != nil {
		t.Fatal(err)
	}
	want := "| | optbuild/naive, s | stock/by-hand | floor |\n|---|--:|--:|--:|\n| S3 W1 (one source file changed: npm <&>) | 1.00 | 0.50 | 10.00 |\n\nTime of"
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if err := os.WriteFile(path, []byte("{}\nno\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readRecorded(path); err == nil || !strings.Contains(err.Error(), "recorded.jsonl:2: ") {
		t.Errorf("a line that is none: %v", err)
	}
}
