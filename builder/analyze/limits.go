package analyze

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// Limits are what an image has to keep. The zero value lets everything pass.
type Limits struct {
	size    int64   // bytes as stored, 0 for none
	waste   float64 // percent of the unpacked bytes, or with wasteIs bytes
	limited bool    // waste is one
	wasteIs int64   // bytes, if waste is not in percent
}

// Any says that there is a limit.
func (l Limits) Any() bool { return l.size > 0 || l.limited }

// ParseLimits reads the values of --max-size ("500MB") and --max-waste ("5%", or a size); "" is no limit.
func ParseLimits(maxSize, maxWaste string) (l Limits, err error) {
	if maxSize != "" {
		if l.size, err = units.FromHumanSize(maxSize); err != nil || l.size <= 0 {
			return l, fmt.Errorf("--max-size %s: is not a size such as 500MB", maxSize)
		}
	}
	if maxWaste == "" {
		return l, nil
	}
	l.limited = true
	if percent, ok := strings.CutSuffix(maxWaste, "%"); ok {
		l.waste, err = strconv.ParseFloat(strings.TrimSpace(percent), 64)
		if err != nil || !(l.waste >= 0 && l.waste <= 100) {
			return l, fmt.Errorf("--max-waste %s: is not a share such as 5%%", maxWaste)
		}
		l.wasteIs = -1
		return l, nil
	}
	if l.wasteIs, err = units.FromHumanSize(maxWaste); err != nil || l.wasteIs < 0 {
		return l, fmt.Errorf("--max-waste %s: is neither a share such as 5%% nor a size such as 10MB", maxWaste)
	}
	return l, nil
}

// ErrLimit is wrapped by the error of an image that is over a limit.
var ErrLimit = errors.New("over the limit")

// Check returns an error that says by how much a limit is not kept.
func (l Limits) Check(r *Report) error {
	var over []string
	if l.size > 0 && r.Bytes > l.size {
		over = append(over, fmt.Sprintf("its layers have %s, %s more than --max-size %s", size(r.Bytes), size(r.Bytes-l.size), size(l.size)))
	}
	switch {
	case !l.limited:
	case l.wasteIs < 0 && r.WastedPercent > l.waste:
		over = append(over, fmt.Sprintf("%.1f %% of its bytes (%s) are wasted, %.1f points more than --max-waste %g%%",
			r.WastedPercent, size(r.WastedBytes), r.WastedPercent-l.waste, l.waste))
	case l.wasteIs >= 0 && r.WastedBytes > l.wasteIs:
		over = append(over, fmt.Sprintf("%s are wasted, %s more than --max-waste %s", size(r.WastedBytes), size(r.WastedBytes-l.wasteIs), size(l.wasteIs)))
	}
	if over == nil {
		return nil
	}
	return fmt.Errorf("%s is %w: %s", r.Image, ErrLimit, strings.Join(over, "; "))
}
