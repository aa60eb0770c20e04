package request

import (
	"encoding/csv"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/outcome"
)

// Where attestations of an image are.
const (
	// AttestInReferrer puts them beside the manifest of each platform, as artifacts that refer to it: the image is what it is without them.
	AttestInReferrer = "referrer"
	// AttestInIndex makes them entries of the image's index for the platform unknown/unknown, which many tools can't read. An image for one platform becomes an index.
	AttestInIndex = "index"
)

// attestations fills in --attest, --provenance and --sbom; of two for one type the first counts, and --attest comes before
// the short forms. None is the default.
func (r *Request) attestations(s *Solve) error {
	if in := r.AttestIn; in != "" && in != AttestInReferrer && in != AttestInIndex {
		return flagErrorf("attest-in", in, "is not %s or %s", AttestInReferrer, AttestInIndex)
	}
	list := nonEmpty(r.Attest)
	for _, short := range []struct{ typ, value string }{{"provenance", r.Provenance}, {"sbom", r.SBOM}} {
		switch on, err := strconv.ParseBool(short.value); {
		case short.value == "":
		case err == nil:
			list = append(list, "type="+short.typ+",disabled="+strconv.FormatBool(!on))
		default:
			list = append(list, "type="+short.typ+","+short.value)
		}
	}
	seen := map[string]bool{}
	for _, v := range list {
		typ, attrs, err := attributes("attest", v)
		if err != nil {
			return err
		}
		if typ != "provenance" && typ != "sbom" {
			return flagErrorf("attest", v, "type is provenance or sbom")
		}
		var off bool
		if d, ok := attrs["disabled"]; ok {
			if off, err = strconv.ParseBool(d); err != nil {
				return flagErrorf("attest", v, "disabled is true or false")
			}
			delete(attrs, "disabled")
		}
		if seen[typ] || off {
			seen[typ] = true
			continue
		}
		seen[typ] = true
		fields := []string{"type=" + typ}
		for k, val := range attrs {
			fields = append(fields, k+"="+val)
		}
		slices.Sort(fields[1:])
		s.FrontendAttrs["attest:"+typ] = csvLine(fields)
	}
	return nil
}

// beside has the attestations of images put beside them. Archives keep them in the index: there is nothing beside an archive.
func (r *Request) beside(s *Solve) {
	if r.AttestIn == AttestInIndex || s.FrontendAttrs["attest:provenance"] == "" && s.FrontendAttrs["attest:sbom"] == "" {
		return
	}
	for _, e := range s.Exports {
		if e.Type == client.ExporterImage {
			e.Attrs[outcome.AttrBeside] = "true"
		}
	}
}

// csvLine is the list that csvvalue reads back.
func csvLine(fields []string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // a strings.Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}
