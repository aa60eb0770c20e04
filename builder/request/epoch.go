package request

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
)

// Values of --epoch, besides a number of seconds since 1970.
const (
	epochAuto = "auto" // SOURCE_DATE_EPOCH, or else the commit's time for the configuration of a clean checkout
	epochOff  = "off"  // what docker does
	epochGit  = "git"  // the commit's time
)

// sourceDateEpoch is the variable of https://reproducible-builds.org/docs/source-date-epoch/.
const sourceDateEpoch = "SOURCE_DATE_EPOCH"

// epoch says which times the outputs get, as far as flags and environment tell:
//
//	--epoch                 steps see   configuration         layers, local and tar outputs
//	auto, SOURCE_DATE_EPOCH the value   the value             no later than the value
//	auto, a clean checkout  nothing     commit's time         as they are
//	git                     nothing     commit's time         no later than the commit's time
//	SECONDS                 nothing     SECONDS               no later than SECONDS
//	off                     as docker: SOURCE_DATE_EPOCH is a build argument and dates the configuration
//
// Attributes of an output count more. See README.md for why a clean checkout does not date layers.
func (r *Request) epoch(s *Solve) error {
	s.epoch = r.Epoch
	if s.epoch == "" {
		s.epoch = epochAuto
	}
	given := s.FrontendAttrs["build-arg:"+sourceDateEpoch] != ""
	switch s.epoch {
	case epochOff, epochGit:
		return nil
	case epochAuto:
		switch {
		case r.Exact:
			s.epoch = epochOff
		case given:
			s.epoch = epochOff // the frontend dates the configuration
			eachExport(s, isImage, exptypes.OptKeyRewriteTimestamp, "true")
		}
		return nil
	}
	if _, err := strconv.ParseUint(s.epoch, 10, 63); err != nil {
		return flagErrorf("epoch", s.epoch, "is not auto, git, off or a number of seconds since 1970")
	}
	s.date(s.epoch)
	s.epoch = epochOff
	return nil
}

// date gives all outputs a time.
func (s *Solve) date(seconds string) {
	eachExport(s, nil, commonexptypes.OptKeySourceDateEpoch, seconds)
	eachExport(s, isImage, exptypes.OptKeyRewriteTimestamp, "true")
}

func isImage(e client.ExportEntry) bool {
	return e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker
}

// eachExport sets an attribute of all outputs of a kind (nil for all) that do not have it.
func eachExport[K ~string](s *Solve, kind func(client.ExportEntry) bool, key K, value string) {
	for _, e := range s.Exports {
		if _, given := e.Attrs[string(key)]; !given && (kind == nil || kind(e)) {
			e.Attrs[string(key)] = value
		}
	}
}

// commitTime completes what epoch left to git. c is the context's checkout, nil if err says why there is none.
func (s *Solve) commitTime(ctx context.Context, c *checkout, err error) error {
	switch s.epoch {
	case epochGit:
		if s.ContextDir == "" {
			err = errors.New("the context is no local directory")
		}
		var when time.Time
		if err == nil {
			when, err = c.committed(ctx)
		}
		if err != nil {
			return &InputError{Path: s.ContextDir, Err: fmt.Errorf("--epoch=git: %w", plainGit(err)), Hint: "--epoch=SECONDS names a time"}
		}
		if clean, err := c.clean(ctx); err == nil && !clean && !c.submodules && !c.programs {
			s.Notes = append(s.Notes, "times: the context has changes that are not committed; it is dated with its last commit all the same")
		}
		s.date(strconv.FormatInt(when.Unix(), 10))
	case epochAuto:
		if c == nil || err != nil || s.datesItself || !s.hasImage() {
			return nil
		}
		if clean, err := c.clean(ctx); err != nil || !clean {
			return nil
		}
		when, err := c.committed(ctx)
		if err != nil {
			return nil
		}
		eachExport(s, isImage, commonexptypes.OptKeySourceDateEpoch, strconv.FormatInt(when.Unix(), 10))
		s.Notes = append(s.Notes, "times: the image is dated with its commit, "+when.Format(time.RFC3339)+" (--epoch=off dates it with the build)")
	}
	return nil
}

func (s *Solve) hasImage() bool {
	for _, e := range s.Exports {
		if isImage(e) {
			return true
		}
	}
	return false
}

// plainGit is git's own words where there are any.
func plainGit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		for line := range strings.Lines(string(exit.Stderr)) {
			if what, fatal := strings.CutPrefix(line, "fatal: "); fatal {
				return errors.New("git: " + strings.TrimSpace(what))
			}
		}
	}
	return err
}
