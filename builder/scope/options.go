package scope

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tonistiigi/go-csvvalue"
)

// Type is the type of a shared cache among BuildKit's imports and exports of caches.
const Type = "optbuild"

// Attributes of an import and of an export of a shared cache. Both have all of them, and an import without an export reads only.
const (
	AttrRef      = "ref"        // the repository, with its registry; no tag
	AttrScope    = "scope"      // that is written, and read before all others; absent if nothing is written
	AttrRead     = "read"       // scopes that are read, in this order, as a line of CSV: git allows commas in names of branches
	AttrAccess   = "access"     // ReadWrite or ReadOnly
	attrMode     = "mode"       // BuildKit's: "max" is the cache of all stages. Without it that of the last stage is written
	AttrMounts   = "mounts"     // "off": contents of cache mounts do not travel; absent otherwise
	AttrStay     = "mounts-off" // ids of cache mounts that do not travel, as a line of CSV; absent if all do
	AttrMaxAge   = "max-age"    // of entries of the scope that is written, in seconds; absent for the default
	AttrMaxBytes = "max-size"   // of all that they hold, in bytes; absent for the default
	AttrSign     = "sign"       // path of a file with the private key that the index is signed with; absent if it is not
	AttrTrust    = "trust"      // path of a file with the public keys one of which must have signed an index; absent if none must have
)

// Values of AttrAccess.
const (
	ReadWrite = "rw"
	ReadOnly  = "ro"
)

// Options are what a build says of a shared cache; the zero value of a field is the default.
type Options struct {
	Ref       string
	Write     string   // "" reads only
	Read      []string // after Write
	MountsOff bool
	Stay      []string      // ids of cache mounts that do not travel, as Dockerfiles have them; targets where those have none
	MaxAge    time.Duration // whole seconds
	MaxBytes  int64
	SignFile  string
	TrustFile string
}

// Attrs are the attributes that ParseOptions reads.
func (o Options) Attrs() map[string]string {
	m := map[string]string{AttrRef: o.Ref, AttrAccess: ReadOnly, attrMode: "max"}
	if o.Write != "" {
		m[AttrAccess], m[AttrScope] = ReadWrite, o.Write
	}
	if len(o.Read) > 0 {
		m[AttrRead] = line(o.Read)
	}
	if len(o.Stay) > 0 {
		m[AttrStay] = line(o.Stay)
	}
	if o.MountsOff {
		m[AttrMounts] = "off"
	}
	if o.MaxAge > 0 {
		m[AttrMaxAge] = strconv.FormatInt(int64(o.MaxAge/time.Second), 10)
	}
	if o.MaxBytes > 0 {
		m[AttrMaxBytes] = strconv.FormatInt(o.MaxBytes, 10)
	}
	if o.SignFile != "" {
		m[AttrSign] = o.SignFile
	}
	if o.TrustFile != "" {
		m[AttrTrust] = o.TrustFile
	}
	return m
}

// line is a line of CSV.
func line(fields []string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // a strings.Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// ParseOptions reads attributes. They may come from any client of the engine, so what is unknown or contradicts itself is an error.
func ParseOptions(attrs map[string]string) (Options, error) {
	o := Options{}
	wrong := func(key string) (Options, error) {
		return Options{}, fmt.Errorf("shared cache: attribute %s=%s is not understood", key, attrs[key])
	}
	var mode string
	for key, value := range attrs {
		var err error
		switch key {
		case AttrRef:
			o.Ref = value
		case AttrScope:
			o.Write = value
		case AttrRead:
			o.Read, err = csvvalue.Fields(value, nil)
		case AttrStay:
			o.Stay, err = csvvalue.Fields(value, nil)
		case AttrAccess:
			mode = value
		case attrMode:
			if value != "max" {
				return wrong(key)
			}
		case AttrMounts:
			o.MountsOff = value == "off"
			if !o.MountsOff && value != "on" {
				return wrong(key)
			}
		case AttrMaxAge:
			var seconds int64
			seconds, err = strconv.ParseInt(value, 10, 64)
			if seconds < 1 || seconds > int64(maxAge/time.Second) {
				return wrong(key)
			}
			o.MaxAge = time.Duration(seconds) * time.Second
		case AttrMaxBytes:
			if o.MaxBytes, err = strconv.ParseInt(value, 10, 64); o.MaxBytes < 1 {
				return wrong(key)
			}
		case AttrSign:
			o.SignFile = value
		case AttrTrust:
			o.TrustFile = value
		default:
			return wrong(key)
		}
		if err != nil {
			return wrong(key)
		}
	}
	switch {
	case o.Ref == "":
		return Options{}, fmt.Errorf("shared cache: attribute %s is missing", AttrRef)
	case mode == ReadOnly:
		o.Read = distinct(append([]string{o.Write}, o.Read...), "")
		o.Write = ""
	case mode != "" && mode != ReadWrite, mode == ReadWrite && o.Write == "":
		return wrong(AttrAccess)
	}
	o.Read = distinct(o.Read, o.Write)
	return o, nil
}

// maxAge bounds ages: ten years is for ever.
const maxAge = 10 * 365 * 24 * time.Hour

// ParseAge reads an age as people write it: 30d, 2w, 12h, or what time.ParseDuration reads.
func ParseAge(text string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not an age (like 30d, 2w or 12h)", text)
	unit, number := time.Duration(0), text
	if n, ok := strings.CutSuffix(text, "d"); ok {
		unit, number = 24*time.Hour, n
	} else if n, ok := strings.CutSuffix(text, "w"); ok {
		unit, number = 7*24*time.Hour, n
	}
	var age time.Duration
	if unit > 0 {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, wrong
		}
		age = time.Duration(n) * unit
	} else {
		var err error
		if age, err = time.ParseDuration(text); err != nil {
			return 0, wrong
		}
	}
	if age < time.Second || age > maxAge {
		return 0, fmt.Errorf("%q is not between a second and ten years", text)
	}
	return age.Truncate(time.Second), nil
}
