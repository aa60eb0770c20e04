package script

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/syntax"
)

// shell is what a SHELL means for the text.
type shell struct {
	bash     bool
	errexit  bool // -e
	pipefail bool // -o pipefail
}

// readShell takes the words before the text. Options that change how a text is read, or that run files first (-l, -i), are refused.
func readShell(words []string) (shell, error) {
	var sh shell
	if len(words) == 0 {
		return sh, nil
	}
	switch base(words[0]) {
	case "sh", "dash", "ash":
	case "bash":
		sh.bash = true
	default:
		return sh, fmt.Errorf("%w: %s", ErrShell, words[0])
	}
	command := false
	for i := 1; i < len(words); i++ {
		w := words[i]
		if sh.bash && (w == "--noprofile" || w == "--norc") {
			continue
		}
		if len(w) < 2 || w[0] != '-' {
			return sh, fmt.Errorf("%w: %s %s", ErrShell, words[0], w)
		}
		for _, option := range w[1:] {
			switch option {
			case 'c':
				command = true
			case 'e':
				sh.errexit = true
			case 'u', 'v', 'x':
			case 'o':
				if i++; i == len(words) || !sh.long(words[i]) {
					return sh, fmt.Errorf("%w: %s", ErrShell, strings.Join(words, " "))
				}
			default:
				return sh, fmt.Errorf("%w: %s -%c", ErrShell, words[0], option)
			}
		}
	}
	if !command {
		return sh, fmt.Errorf("%w: %s without -c", ErrShell, strings.Join(words, " "))
	}
	return sh, nil
}

// long takes the argument of -o.
func (sh *shell) long(option string) bool {
	switch option {
	case "errexit":
		sh.errexit = true
	case "pipefail":
		sh.pipefail = true
	case "nounset", "xtrace", "verbose":
	default:
		return false
	}
	return true
}

// parsers are reused because one is 12 kB.
var posixParsers, bashParsers = parserPool(syntax.LangPOSIX), parserPool(syntax.LangBash)

func parserPool(lang syntax.LangVariant) *sync.Pool {
	return &sync.Pool{New: func() any { return syntax.NewParser(syntax.Variant(lang), syntax.KeepComments(true)) }}
}

func (sh shell) parse(text string) (*syntax.File, error) {
	pool := posixParsers
	if sh.bash {
		pool = bashParsers
	}
	p := pool.Get().(*syntax.Parser)
	defer pool.Put(p)
	file, err := p.Parse(strings.NewReader(text), "")
	if err == nil {
		return file, nil
	}
	e := &SyntaxError{Message: err.Error()}
	var parse syntax.ParseError
	var lang syntax.LangError
	switch {
	case errors.As(err, &parse):
		e.Offset, e.Line, e.Column, e.Message = parse.Pos.Offset(), parse.Pos.Line(), parse.Pos.Col(), parse.Text
	case errors.As(err, &lang):
		e.Offset, e.Line, e.Column = lang.Pos.Offset(), lang.Pos.Line(), lang.Pos.Col()
		e.Message = "this is not POSIX shell: " + lang.Feature
	}
	e.Offset = min(e.Offset, uint(len(text)))
	return nil, e
}
