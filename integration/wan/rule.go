package wan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseRule reads a rule as scripts write it: what requests it matches, a fault, and what there is to say about it.
//
//	'GET /v2/.*/blobs/' reset after=100000 times=1
//	'PUT' status code=507 message='no room left'
//
// The faults and their words, besides skip=N and times=N:
//
//	status code=N [retry-after=N] [message=TEXT]   an error
//	reset [after=BYTES]                            the connection breaks off
//	truncate [after=BYTES]                         the connection ends
//	short [after=BYTES]                            a body that is too short for its digest, and says that it is complete
//	trickle [after=BYTES] [every=1s] [for=1m]      one byte a second, and then a reset
//	corrupt [at=BYTES]                             one byte is another
//	delay for=5s
//	expire                                         tokens are no longer valid
func ParseRule(words []string) (Rule, error) {
	if len(words) < 2 {
		return Rule{}, errors.New("a rule is a regular expression and a fault, and KEY=VALUE words")
	}
	re, err := regexp.Compile(words[0])
	if err != nil {
		return Rule{}, err
	}
	v := values{given: map[string]string{}}
	for _, w := range words[2:] {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return Rule{}, fmt.Errorf("%q is not KEY=VALUE", w)
		}
		v.given[key] = value
	}
	rule := Rule{Request: re, Skip: int(v.number("skip", 0)), Times: int(v.number("times", 0))}
	switch kind := words[1]; kind {
	case "status":
		rule.Fault = Status{Code: int(v.number("code", 500)), RetryAfter: v.text("retry-after"), Message: v.text("message")}
	case "reset":
		rule.Fault = Reset{v.number("after", 0)}
	case "truncate":
		rule.Fault = Truncate{v.number("after", 0)}
	case "short":
		rule.Fault = Short{v.number("after", 0)}
	case "trickle":
		rule.Fault = Trickle{After: v.number("after", 0), Every: v.duration("every", time.Second), For: v.duration("for", time.Minute)}
	case "corrupt":
		rule.Fault = Corrupt{v.number("at", 0)}
	case "delay":
		rule.Fault = Delay{v.duration("for", time.Second)}
	case "expire":
		rule.Fault = Expire{}
	default:
		return Rule{}, fmt.Errorf("%q is no fault", kind)
	}
	return rule, v.finish()
}

// values are the words KEY=VALUE of a rule. Each is to be asked for.
type values struct {
	given map[string]string
	asked []string
	err   error
}

func (v *values) text(key string) string {
	v.asked = append(v.asked, key)
	return v.given[key]
}

func (v *values) number(key string, otherwise int64) int64 {
	text := v.text(key)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		v.err = fmt.Errorf("%s=%s is no number", key, text)
	}
	return n
}

func (v *values) duration(key string, otherwise time.Duration) time.Duration {
	text := v.text(key)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		v.err = fmt.Errorf("%s=%s is no duration", key, text)
	}
	return d
}

func (v *values) finish() error {
	for key := range v.given {
		if !slices.Contains(v.asked, key) {
			return fmt.Errorf("this fault has no %s", key)
		}
	}
	return v.err
}

// ParseProfile reads a rate, as 100mbit or 512kbit, and a round trip, as 20ms.
func ParseProfile(rate, roundTrip string) (p Profile, err error) {
	units := []struct {
		name string
		bits int64
	}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}}
	for _, u := range units {
		if number, ok := strings.CutSuffix(rate, u.name); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil || n <= 0 {
				break
			}
			p.BitsPerSecond = n * u.bits
		}
	}
	if p.BitsPerSecond == 0 {
		return p, fmt.Errorf("%q is no rate such as 100mbit", rate)
	}
	p.RoundTrip, err = time.ParseDuration(roundTrip)
	return p, err
}
