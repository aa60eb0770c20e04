package script

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// variables goes through everything that expands a variable, whatever command it belongs to.
func (w *walker) variables(file *syntax.File) {
	for node := range syntax.Preorder(file) {
		switch n := node.(type) {
		case *syntax.ParamExp:
			w.param(n)
		case *syntax.ArithmExp:
			w.arithmetic(n.X)
		case *syntax.ArithmCmd:
			w.arithmetic(n.X)
		case *syntax.LetClause:
			for _, x := range n.Exprs {
				w.arithmetic(x)
			}
		case *syntax.CStyleLoop:
			w.arithmetic(n.Init)
			w.arithmetic(n.Cond)
			w.arithmetic(n.Post)
		case *syntax.Assign:
			w.arithmetic(n.Index)
		case *syntax.WordIter:
			w.s.sets.add(n.Name.Value)
		case *syntax.CallExpr:
			if len(n.Args) == 0 {
				for _, a := range n.Assigns {
					w.s.sets.add(a.Name.Value)
				}
			}
			for _, a := range n.Assigns {
				if a.Append {
					w.s.reads.add(a.Name.Value)
				}
			}
		case *syntax.UnaryTest:
			if word, ok := n.X.(*syntax.Word); ok && (n.Op == syntax.TsVarSet || n.Op == syntax.TsRefVar) {
				w.s.reads.add(word.Lit())
				w.s.reads.all = w.s.reads.all || word.Lit() == ""
			}
		case *syntax.BinaryTest:
			switch n.Op {
			case syntax.TsEql, syntax.TsNeq, syntax.TsLeq, syntax.TsGeq, syntax.TsLss, syntax.TsGtr: // arithmetic in bash
				w.testNumber(n.X)
				w.testNumber(n.Y)
			}
		case *syntax.Word:
			w.tilde(n)
		}
	}
}

func (w *walker) param(p *syntax.ParamExp) {
	if p.Excl || p.Names != 0 || p.NestedParam != nil || p.Param == nil {
		w.s.reads.all = true
		return
	}
	if p.Exp != nil && p.Exp.Op == syntax.OtherParamOps { // ${x@P} expands the value once more
		w.s.reads.all = true
	}
	w.s.reads.add(variable(p.Param.Value))
	if p.Exp != nil && (p.Exp.Op == syntax.AssignUnset || p.Exp.Op == syntax.AssignUnsetOrNull) {
		w.s.sets.add(variable(p.Param.Value))
	}
	w.arithmetic(p.Index)
	if p.Slice != nil {
		w.arithmetic(p.Slice.Offset)
		w.arithmetic(p.Slice.Length)
	}
}

// variable is the name, or nothing for $1, $@, $? and the like.
func variable(name string) string {
	if syntax.ValidName(name) {
		return name
	}
	return ""
}

// arithmetic adds the names without a dollar.
func (w *walker) arithmetic(x syntax.ArithmExpr) {
	switch x := x.(type) {
	case nil:
	case *syntax.Word:
		w.s.reads.add(variable(x.Lit()))
	case *syntax.ParenArithm:
		w.arithmetic(x.X)
	case *syntax.UnaryArithm:
		w.arithmetic(x.X)
		if x.Op == syntax.Inc || x.Op == syntax.Dec {
			w.target(x.X)
		}
	case *syntax.BinaryArithm:
		w.arithmetic(x.X)
		w.arithmetic(x.Y)
		if strings.HasSuffix(x.Op.String(), "=") {
			switch x.Op {
			case syntax.Eql, syntax.Neq, syntax.Leq, syntax.Geq:
			default:
				w.target(x.X)
			}
		}
	default:
		w.s.reads.all = true
	}
}

func (w *walker) target(x syntax.ArithmExpr) {
	if word, ok := x.(*syntax.Word); ok && variable(word.Lit()) != "" {
		w.s.sets.add(word.Lit())
		return
	}
	w.s.sets.all = true
}

func (w *walker) testNumber(x syntax.TestExpr) {
	if word, ok := x.(*syntax.Word); ok {
		w.s.reads.add(variable(word.Lit()))
	}
}

// tilde: ~ is $HOME, ~+ and ~- are $PWD and $OLDPWD.
func (w *walker) tilde(word *syntax.Word) {
	lit, ok := word.Parts[0].(*syntax.Lit)
	if ok && strings.Contains(lit.Value, "~") {
		w.s.reads.add("HOME")
		w.s.reads.add("OLDPWD")
		w.s.reads.add("PWD")
	}
}

// variablesIn are the names that a node expands, each once, in the order of the text.
func variablesIn(node syntax.Node) []string {
	var list names
	for n := range syntax.Preorder(node) {
		switch n := n.(type) {
		case *syntax.ParamExp:
			if n.Param != nil {
				list.add(variable(n.Param.Value))
			}
		case *syntax.ArithmExp:
			w := walker{s: &Script{}}
			w.arithmetic(n.X)
			list.addAll(w.s.reads)
		}
	}
	return list.list
}
