// Package tomlfile reads small TOML files of settings: each key is a field, and what is wrong is told with its line.
package tomlfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Decode reads text into v, a pointer to a struct. Of what is wrong it says the line, from 1 on; 0 if that is not known.
func Decode(text []byte, v any) (line int, err error) {
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, _ = unknown.Errors[0].Position()
		return line, UnknownKeyError(strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &wrong):
		line, _ = wrong.Position()
		return line, errors.New(strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return 0, err
}

// UnknownKeyError is a key that is no field.
type UnknownKeyError string

func (e UnknownKeyError) Error() string { return fmt.Sprintf("unknown key %q", string(e)) }
