package startup

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/sys/signal"

	"github.com/optbuild/optbuild/builder/profile"
)

// Program is what is started.
type Program struct {
	Args, Env []string
	User, Dir string
	// Stop is the signal that asks it to end.
	Stop syscall.Signal
	// Health is the image's health check, nil if it has none.
	Health *profile.Health
}

// Replaced is what of an image's configuration something else is started for.
type Replaced struct {
	// Cmd takes the place of the image's CMD, if it is not nil.
	Cmd []string
	// Entrypoint takes the place of the image's ENTRYPOINT, and its CMD counts no more, if it is not nil. Empty: there is none.
	Entrypoint *string
}

// ErrNoCommand is wrapped by the error about an image that says nothing of what to start.
var ErrNoCommand = errors.New("the image has no ENTRYPOINT and no CMD")

// ProgramOf returns what `docker run` would start for an image's configuration. Without one (a stage that was not to be an image) there is only what replaces it.
func ProgramOf(config []byte, r Replaced) (Program, *dockerspec.DockerOCIImage, error) {
	image := &dockerspec.DockerOCIImage{}
	if len(config) > 0 {
		if err := json.Unmarshal(config, image); err != nil {
			return Program{}, nil, fmt.Errorf("read configuration of the image: %w", err)
		}
	}
	c := image.Config
	entrypoint, cmd := c.Entrypoint, c.Cmd
	if r.Entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *r.Entrypoint != "" {
			entrypoint = []string{*r.Entrypoint}
		}
	}
	if r.Cmd != nil {
		cmd = r.Cmd
	}
	p := Program{Args: slices.Concat(entrypoint, cmd), Env: c.Env, User: c.User, Dir: c.WorkingDir, Stop: syscall.SIGTERM}
	if len(p.Args) == 0 {
		return p, image, ErrNoCommand
	}
	if c.StopSignal != "" {
		s, err := signal.ParseSignal(c.StopSignal)
		if err != nil {
			return p, image, fmt.Errorf("STOPSIGNAL of the image: %w", err)
		}
		p.Stop = s
	}
	p.Health = healthOf(c)
	return p, image, nil
}

// defaultTimeout is docker's for a health check.
const defaultTimeout = 30 * time.Second

func healthOf(c dockerspec.DockerOCIImageConfig) *profile.Health {
	if c.Healthcheck == nil || len(c.Healthcheck.Test) < 2 {
		return nil // none, or NONE
	}
	h := &profile.Health{Timeout: c.Healthcheck.Timeout}
	if h.Timeout <= 0 {
		h.Timeout = defaultTimeout
	}
	switch kind, args := c.Healthcheck.Test[0], c.Healthcheck.Test[1:]; kind {
	case "CMD":
		h.Args = args
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		h.Args = append(slices.Clone(shell), strings.Join(args, " "))
	default:
		return nil
	}
	return h
}
