package lint

import (
	"encoding/json"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"slices"
)

// The types of this file are what is needed of SARIF 2.1.0.
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Version        string      `json:"version,omitempty"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID       string       `json:"id"`
		Short    sarifText    `json:"shortDescription"`
		HelpURI  string       `json:"helpUri,omitempty"`
		Defaults sarifDefault `json:"defaultConfiguration"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
		Fixes     []sarifFix      `json:"fixes,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI  string `json:"uri"`
		Base string `json:"uriBaseId,omitempty"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
		EndLine     int `json:"endLine"`
		EndColumn   int `json:"endColumn,omitempty"`
	}
	sarifFix struct {
		Description sarifText     `json:"description"`
		Changes     []sarifChange `json:"artifactChanges"`
	}
	sarifChange struct {
		Artifact     sarifArtifact      `json:"artifactLocation"`
		Replacements []sarifReplacement `json:"replacements"`
	}
	sarifReplacement struct {
		Deleted  sarifPoint `json:"deletedRegion"`
		Inserted sarifText  `json:"insertedContent"`
	}
	sarifPoint struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn"`
		EndColumn   int `json:"endColumn"`
	}
)

// sarifLevels are SARIF's names of severities.
var sarifLevels = map[Severity]string{Info: "note", Warning: "warning", Error: "error"}

// SARIF writes findings in the format that code scanning services take. version is optbuild's; context is the context's directory, as the user
// knows it.
func SARIF(w io.Writer, list []Finding, version, context string) error {
	driver := sarifDriver{Name: "optbuild", InformationURI: "https://github.com/optbuild/optbuild", Version: version, Rules: []sarifRule{}}
	for _, r := range Rules() {
		driver.Rules = append(driver.Rules, sarifRule{ID: r.Name, Short: sarifText{r.Summary}, HelpURI: r.URL, Defaults: sarifDefault{sarifLevels[r.Severity]}})
	}
	index := func(f Finding) int {
		i := slices.IndexFunc(driver.Rules, func(r sarifRule) bool { return r.ID == f.Rule })
		if i < 0 { // BuildKit's
			i = len(driver.Rules)
			driver.Rules = append(driver.Rules, sarifRule{ID: f.Rule, Short: sarifText{f.summary}, HelpURI: f.URL, Defaults: sarifDefault{sarifLevels[Warning]}})
		}
		return i
	}
	results := []sarifResult{}
	for _, f := range list {
		text := f.Message + "."
		if f.Remedy != "" {
			text += " Remedy: " + f.Remedy + "."
		}
		r := sarifResult{
			RuleID: f.Rule, RuleIndex: index(f), Level: sarifLevels[f.Severity], Message: sarifText{text},
			Locations: []sarifLocation{{sarifPhysical{artifact(f.File), sarifRegion{f.Range.Line, f.Range.Column, f.Range.EndLine, f.Range.EndColumn}}}},
		}
		if f.Fix != nil {
			r.Fixes = []sarifFix{{
				Description: sarifText{"write " + f.Fix.File},
				Changes:     []sarifChange{{artifact(path.Join(filepath.ToSlash(context), f.Fix.File)), []sarifReplacement{{sarifPoint{1, 1, 1}, sarifText{f.Fix.Content}}}}},
			}}
		}
		results = append(results, r)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0",
		Runs: []sarifRun{{Tool: sarifTool{driver}, ColumnKind: "unicodeCodePoints", Results: results}},
	})
}

// artifact is a file: relative to the root of the sources if its path is.
func artifact(name string) sarifArtifact {
	u := url.URL{Path: filepath.ToSlash(name)}
	if filepath.IsAbs(name) {
		u.Scheme = "file"
		return sarifArtifact{URI: u.String()}
	}
	return sarifArtifact{URI: u.String(), Base: "%SRCROOT%"}
}
