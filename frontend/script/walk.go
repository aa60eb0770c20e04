package script

import (
	"slices"

	"mvdan.cc/sh/v3/syntax"
)

// maxDepth is how deep `sh -c '...'` is looked into.
const maxDepth = 3

// context is what the place of a statement means for the commands in it.
type context struct {
	status      bool // the statement's status decides whether the script goes on or succeeds
	errexit     bool // -e counts here: it does not in conditions, before && and ||, and after !
	conditional bool
	background  bool
	piped       bool
	subshell    bool
	function    bool
}

// walker goes through the tree once, in the order of the text.
type walker struct {
	s         *Script
	shell     shell
	depth     int
	errexit   bool // -e is in force
	pipefail  bool
	exited    bool // an exit was passed: whatever follows is conditional
	functions []string
}

func (w *walker) file(f *syntax.File) {
	w.declared(f)
	w.stmts(f.Stmts, context{status: true, errexit: true})
	w.variables(f)
}

// declared collects functions and comments. Functions come first: a call may stand before the declaration, in another function.
func (w *walker) declared(f *syntax.File) {
	for node := range syntax.Preorder(f) {
		switch n := node.(type) {
		case *syntax.FuncDecl:
			if n.Name != nil {
				w.functions = append(w.functions, n.Name.Value)
			}
		case *syntax.Comment:
			w.s.comments = append(w.s.comments, w.span(n))
		}
	}
	slices.SortFunc(w.s.comments, func(a, b Span) int { return int(a.Start) - int(b.Start) })
}

func (w *walker) span(n interface{ Pos() syntax.Pos }) Span {
	size := uint(len(w.s.Text))
	start := min(n.Pos().Offset(), size)
	end := start
	if n, ok := n.(interface{ End() syntax.Pos }); ok {
		end = min(max(n.End().Offset(), start), size)
	}
	return Span{start, end}
}

// statement is the place of a statement without what ends it and without the bodies of heredocs, which may be far away.
func (w *walker) statement(stmt *syntax.Stmt) Span {
	sp := w.span(stmt)
	end := sp.Start
	if stmt.Cmd != nil {
		end = max(end, stmt.Cmd.End().Offset())
	}
	for _, r := range stmt.Redirs {
		end = max(end, r.Word.End().Offset())
	}
	if end > sp.Start {
		sp.End = min(end, sp.End)
	}
	return sp
}

func (w *walker) text(sp Span) string { return w.s.Text[sp.Start:sp.End] }

// stmts is a list: all but the last are checked by -e only.
func (w *walker) stmts(list []*syntax.Stmt, c context) {
	for i, stmt := range list {
		here := c
		if i < len(list)-1 {
			here.status = false
		}
		w.stmt(stmt, here)
	}
}

func (w *walker) stmt(stmt *syntax.Stmt, c context) {
	if stmt.Background || stmt.Coprocess || stmt.Disown {
		c.background, c.status, c.errexit, c.subshell = true, false, false, true
		w.s.compound = true
		w.hazard(Background, stmt, c, "")
	}
	if stmt.Negated {
		c.status, c.errexit = false, false
		w.s.compound = true
	}
	call, simple := stmt.Cmd.(*syntax.CallExpr)
	if simple || stmt.Cmd == nil {
		w.call(stmt, call, c)
		return
	}
	switch cmd := stmt.Cmd.(type) {
	case *syntax.BinaryCmd:
		if len(stmt.Redirs) > 0 {
			w.s.compound = true
		}
		w.binary(cmd, c)
	case *syntax.DeclClause:
		w.decl(stmt, cmd, c)
	default:
		w.s.compound, w.s.control = true, true
		w.block(stmt, c)
	}
	if _, ok := stmt.Cmd.(*syntax.DeclClause); !ok {
		for _, r := range stmt.Redirs {
			w.words(c, r.Word, r.Hdoc)
		}
	}
}

// andList reports whether a statement has no || and no & at its top.
func andList(stmt *syntax.Stmt) bool {
	if stmt.Background || stmt.Coprocess || stmt.Disown || stmt.Semicolon.IsValid() {
		return false
	}
	if b, ok := stmt.Cmd.(*syntax.BinaryCmd); ok {
		switch b.Op {
		case syntax.OrStmt:
			return false
		case syntax.AndStmt:
			return andList(b.X) && andList(b.Y)
		}
	}
	return true
}

func (w *walker) binary(cmd *syntax.BinaryCmd, c context) {
	x, y := c, c
	switch cmd.Op {
	case syntax.AndStmt:
		x.errexit = false
		y.conditional = c.conditional || !c.status
	case syntax.OrStmt:
		w.s.compound = true
		x.status, x.errexit = false, false
		y.conditional = true
	default: // | and |&
		w.s.compound = true
		x, y = w.enter(c), w.enter(c)
		x.piped, y.piped = true, true
		if !w.pipefail {
			x.status, x.errexit = false, false
		}
	}
	errexit, pipefail, exited := w.errexit, w.pipefail, w.exited
	w.stmt(cmd.X, x)
	if x.subshell && !c.subshell {
		w.errexit, w.pipefail, w.exited = errexit, pipefail, exited
	}
	w.stmt(cmd.Y, y)
	if y.subshell && !c.subshell {
		w.errexit, w.pipefail, w.exited = errexit, pipefail, exited
	}
}

// enter is the context in a subshell: -e ends only that, and what matters is whether its status does.
func (w *walker) enter(c context) context {
	matters := c.status || c.errexit && w.errexit
	c.subshell, c.status, c.errexit = true, matters, matters && c.errexit
	return c
}

// block is a command that has commands in it.
func (w *walker) block(stmt *syntax.Stmt, c context) {
	condition, body := c, c
	condition.status, condition.errexit = false, false
	body.conditional = true
	switch cmd := stmt.Cmd.(type) {
	case *syntax.Block:
		w.stmts(cmd.Stmts, c)
	case *syntax.Subshell:
		c = w.enter(c)
		errexit, pipefail, exited := w.errexit, w.pipefail, w.exited
		w.stmts(cmd.Stmts, c)
		w.errexit, w.pipefail, w.exited = errexit, pipefail, exited
	case *syntax.IfClause:
		for clause := cmd; clause != nil; clause = clause.Else {
			w.stmts(clause.Cond, condition)
			condition.conditional = true
			w.stmts(clause.Then, body)
		}
	case *syntax.WhileClause:
		w.stmts(cmd.Cond, condition)
		body.status = false
		w.stmts(cmd.Do, body)
	case *syntax.ForClause:
		switch loop := cmd.Loop.(type) {
		case *syntax.WordIter:
			w.words(condition, loop.Items...)
		case *syntax.CStyleLoop:
			w.substitutions(loop, condition)
		}
		body.status = false
		w.stmts(cmd.Do, body)
	case *syntax.CaseClause:
		w.words(condition, cmd.Word)
		for _, item := range cmd.Items {
			w.words(body, item.Patterns...)
			w.stmts(item.Stmts, body)
		}
	case *syntax.FuncDecl:
		w.hazard(Function, stmt, c, "")
		body.function = true
		errexit, pipefail, exited := w.errexit, w.pipefail, w.exited
		w.stmt(cmd.Body, body)
		// A call may come at any time: what the body switches off counts as off from here on.
		w.errexit, w.pipefail, w.exited = errexit && w.errexit, pipefail && w.pipefail, exited || w.exited
	case *syntax.TimeClause:
		if cmd.Stmt != nil {
			w.stmt(cmd.Stmt, c)
		}
	case *syntax.CoprocClause:
		c.background, c.subshell, c.status, c.errexit = true, true, false, false
		w.hazard(Background, stmt, c, "")
		w.stmt(cmd.Stmt, c)
	case *syntax.TestClause:
		w.special("[[", stmt, c)
	case *syntax.ArithmCmd:
		w.special("((", stmt, c)
	case *syntax.LetClause:
		w.special("let", stmt, c)
	default:
		w.s.reads.all, w.s.sets.all = true, true
		w.hazard(Eval, stmt, c, "")
	}
}

// special is a command that has a grammar of its own: its name is known, its words are not.
func (w *walker) special(name string, stmt *syntax.Stmt, c context) {
	sp := w.statement(stmt)
	cmd := w.command(sp, c)
	cmd.Words = []Word{{Raw: name, Value: name, Literal: true}, {Raw: w.text(sp)}}
	w.add(cmd)
	w.substitutions(stmt.Cmd, c)
}

// command has the marks that come from its place.
func (w *walker) command(sp Span, c context) Command {
	return Command{
		Start: sp.Start, End: sp.End,
		Conditional: c.conditional || w.exited,
		Unchecked:   !c.status && !(c.errexit && w.errexit),
		Background:  c.background,
		Piped:       c.piped,
		Subshell:    c.subshell,
		inFunction:  c.function,
	}
}

func (w *walker) call(stmt *syntax.Stmt, call *syntax.CallExpr, c context) {
	cmd := w.command(w.statement(stmt), c)
	if call != nil {
		for _, a := range call.Assigns {
			cmd.Assigns = append(cmd.Assigns, w.assign(a))
		}
		for _, a := range call.Args {
			cmd.Words = append(cmd.Words, w.word(a))
		}
	}
	for _, r := range stmt.Redirs {
		cmd.Redirects = append(cmd.Redirects, w.redirect(r))
	}
	w.add(cmd)
	if call != nil {
		// The status of X=$(cmd) is that of cmd; in a word it is lost.
		for _, a := range call.Assigns {
			w.substitutionsOf(a, c, len(call.Args) == 0 && len(call.Assigns) == 1)
		}
		for _, a := range call.Args {
			w.substitutions(a, c)
		}
	}
	for _, r := range stmt.Redirs {
		w.words(c, r.Word, r.Hdoc)
	}
}

// decl is bash's export, declare, local and the like, which the parser does not see as simple commands.
func (w *walker) decl(stmt *syntax.Stmt, d *syntax.DeclClause, c context) {
	cmd := w.command(w.statement(stmt), c)
	cmd.Words = append(cmd.Words, Word{Raw: d.Variant.Value, Value: d.Variant.Value, Literal: true})
	for _, a := range d.Args {
		word := Word{Raw: w.text(w.span(a))}
		switch {
		case a.Naked && a.Name != nil && a.Index == nil:
			word.Value, word.Literal = a.Name.Value, true
		case a.Naked && a.Value != nil:
			word = w.word(a.Value)
		case a.Name != nil && a.Index == nil && a.Array == nil:
			v := w.assign(a)
			word.Value, word.Literal, word.Vars = "", v.Value.Literal, v.Value.Vars
			if v.Value.Literal {
				word.Value = v.Name + "=" + v.Value.Value
			}
		}
		cmd.Words = append(cmd.Words, word)
	}
	for _, r := range stmt.Redirs {
		cmd.Redirects = append(cmd.Redirects, w.redirect(r))
	}
	w.add(cmd)
	w.substitutions(d, c)
	for _, r := range stmt.Redirs {
		w.words(c, r.Word, r.Hdoc)
	}
}

func (w *walker) words(c context, list ...*syntax.Word) {
	for _, word := range list {
		if word != nil {
			w.substitutions(word, c)
		}
	}
}

// substitutions adds the commands of $(...), `...`, <(...) and >(...) in a node, whose status is lost.
func (w *walker) substitutions(node syntax.Node, c context) { w.substitutionsOf(node, c, false) }

func (w *walker) substitutionsOf(node syntax.Node, c context, keepsStatus bool) {
	if word, ok := node.(*syntax.Word); ok && plain(word) {
		return
	}
	// bash does not hand -e on to substitutions.
	c.subshell, c.status, c.errexit = true, keepsStatus && (c.status || c.errexit && w.errexit), false
	nested := func(list []*syntax.Stmt, c context) bool {
		w.s.compound, w.s.control = true, true
		errexit, pipefail, exited := w.errexit, w.pipefail, w.exited
		w.stmts(list, c)
		w.errexit, w.pipefail, w.exited = errexit, pipefail, exited
		return false
	}
	syntax.Walk(node, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CmdSubst:
			return nested(n.Stmts, c)
		case *syntax.ProcSubst:
			c := c
			c.background, c.status, c.errexit = true, false, false
			return nested(n.Stmts, c)
		}
		return true
	})
}

func plain(word *syntax.Word) bool {
	for _, p := range word.Parts {
		switch p.(type) {
		case *syntax.Lit, *syntax.SglQuoted:
		default:
			return false
		}
	}
	return true
}

// add completes a command with what its words say, and looks into `sh -c '...'`.
func (w *walker) add(c Command) {
	c.unwrap(w.functions)
	w.effects(&c)
	w.s.commands = append(w.s.commands, c)
	words, ok := c.shellCall()
	if !ok {
		w.s.reads.all = w.s.reads.all || words != nil
		return
	}
	if w.depth >= maxDepth {
		w.s.reads.all = true
		return
	}
	inner, err := parse(words[len(words)-1], words[:len(words)-1], w.depth+1)
	if err != nil {
		w.s.reads.all = true
		return
	}
	w.s.reads.addAll(inner.reads)
	for _, cmd := range inner.commands {
		cmd.Start, cmd.End, cmd.inner, cmd.Subshell = c.Start, c.End, true, true
		cmd.Conditional = cmd.Conditional || c.Conditional
		cmd.Unchecked = cmd.Unchecked || c.Unchecked
		cmd.Background = cmd.Background || c.Background
		cmd.Piped = cmd.Piped || c.Piped
		cmd.Wrappers = append(slices.Clone(c.Wrappers), cmd.Wrappers...)
		w.s.commands = append(w.s.commands, cmd)
	}
	for _, h := range inner.hazards {
		h.Start, h.End, h.Nested = c.Start, c.End, true
		w.s.hazards = append(w.s.hazards, h)
	}
}

// finish puts the commands in the order of the text: those in redirects and in `sh -c` were met late.
func (w *walker) finish() {
	slices.SortStableFunc(w.s.commands, func(a, b Command) int { return int(a.Start) - int(b.Start) })
	slices.SortStableFunc(w.s.hazards, func(a, b Hazard) int { return int(a.Start) - int(b.Start) })
}
