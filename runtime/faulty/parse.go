package faulty

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// maxNumber bounds counts and sizes in rules.
const maxNumber = 1 << 40

// Plan is a list of rules. The zero Plan lets everything pass.
type Plan struct{ rules []rule }

// String is the plan in its language: parsing it gives the same plan.
func (p Plan) String() string {
	lines := make([]string, len(p.rules))
	for i, r := range p.rules {
		lines[i] = r.String()
	}
	return strings.Join(lines, "; ")
}

type rule struct {
	method string
	object string // a pattern
	named  bool   // there is a pattern
	from   int64
	to     int64 // maxNumber: no end
	do     []action
}

func (r rule) String() string {
	var b strings.Builder
	b.WriteString(r.method)
	if r.named {
		fmt.Fprintf(&b, "(%s)", r.object)
	}
	switch {
	case r.from == 1 && r.to == maxNumber:
	case r.to == maxNumber:
		fmt.Fprintf(&b, "@%d+", r.from)
	case r.from == r.to:
		fmt.Fprintf(&b, "@%d", r.from)
	default:
		fmt.Fprintf(&b, "@%d-%d", r.from, r.to)
	}
	sep := " = "
	for _, a := range r.do {
		b.WriteString(sep + a.String())
		sep = ", "
	}
	return b.String()
}

// matches reports whether a call is one that the rule counts.
func (r rule) matches(method, object string) bool {
	if r.method != anyMethod && r.method != method {
		return false
	}
	if !r.named {
		return true
	}
	ok, err := path.Match(r.object, object)
	return ok && err == nil
}

const anyMethod = "*"

type verb string

const (
	verbDo    verb = "do"
	verbDelay verb = "delay"
	verbHang  verb = "hang"
	verbFail  verb = "fail"
	verbPanic verb = "panic"
	verbBreak verb = "break"
)

type action struct {
	verb  verb
	delay time.Duration
	bytes int64
	kind  string
	text  string
}

func (a action) String() string {
	s := string(a.verb)
	switch a.verb {
	case verbDelay:
		s += " " + a.delay.String()
	case verbBreak:
		s += " " + strconv.FormatInt(a.bytes, 10)
	}
	if a.kind != "" {
		s += " " + a.kind
	}
	if a.text != "" {
		s += " " + strconv.Quote(a.text)
	}
	return s
}

var kinds = map[string]error{
	"already-exists":      errdefs.ErrAlreadyExists,
	"aborted":             errdefs.ErrAborted,
	"data-loss":           errdefs.ErrDataLoss,
	"failed-precondition": errdefs.ErrFailedPrecondition,
	"internal":            errdefs.ErrInternal,
	"invalid-argument":    errdefs.ErrInvalidArgument,
	"not-found":           errdefs.ErrNotFound,
	"not-implemented":     errdefs.ErrNotImplemented,
	"permission-denied":   errdefs.ErrPermissionDenied,
	"unauthenticated":     errdefs.ErrUnauthenticated,
	"unavailable":         errdefs.ErrUnavailable,
}

// Kinds are the kinds of error that a rule can name, sorted. Without one it is
// "internal".
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Methods are the methods of a Runtime, sorted.
func Methods() []string {
	t := reflect.TypeFor[runtime.Runtime]()
	names := make([]string, t.NumMethod())
	for i := range names {
		names[i] = t.Method(i).Name
	}
	return names
}

// Parse reads rules. Its error says where the text is wrong, and what may stand
// there.
func Parse(text string) (Plan, error) {
	var plan Plan
	p := &parser{text: text}
	for {
		p.blanks(true)
		if p.at >= len(p.text) {
			return plan, nil
		}
		r, err := p.rule()
		if err != nil {
			return Plan{}, err
		}
		plan.rules = append(plan.rules, r)
		p.blanks(false)
		if p.at < len(p.text) && !p.take(';') && !p.take('\n') {
			return Plan{}, p.errorf("want a comma and an action, or ; and a rule")
		}
	}
}

// MustParse is [Parse] for rules that are known to be right; it panics otherwise.
func MustParse(text string) Plan {
	p, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return p
}

type parser struct {
	text string
	at   int
}

func (p *parser) errorf(format string, args ...any) error {
	line := 1 + strings.Count(p.text[:p.at], "\n")
	column := p.at - strings.LastIndexByte(p.text[:p.at], '\n')
	return fmt.Errorf("fault rules:%d:%d: %s", line, column, fmt.Sprintf(format, args...))
}

func (p *parser) peek() byte {
	if p.at >= len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

// blanks skips spaces and comments, and what stands between rules if between is set.
func (p *parser) blanks(between bool) {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == ' ' || c == '\t' || c == '\r', between && (c == '\n' || c == ';'):
			p.at++
		case c == '#':
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		default:
			return
		}
	}
}

// word takes letters and digits of ASCII, and the characters of more.
func (p *parser) word(more string) string {
	begin := p.at
	for _, c := range p.text[begin:] {
		if (c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c)) && !strings.ContainsRune(more, c) {
			break
		}
		p.at += utf8.RuneLen(c)
	}
	return p.text[begin:p.at]
}

func (p *parser) rule() (rule, error) {
	r := rule{from: 1, to: maxNumber}
	begin := p.at
	if p.take('*') {
		r.method = anyMethod
	} else if r.method = p.word(""); !slices.Contains(Methods(), r.method) {
		p.at = begin
		return r, p.errorf("want * or a method: %s", strings.Join(Methods(), ", "))
	}
	p.blanks(false)
	if p.take('(') {
		end := strings.IndexByte(p.text[p.at:], ')')
		if end < 0 || strings.ContainsAny(p.text[p.at:p.at+end], "\n;") {
			return r, p.errorf("want an object's name, or a pattern, and )")
		}
		r.object, r.named = p.text[p.at:p.at+end], true
		if _, err := path.Match(r.object, ""); err != nil {
			return r, p.errorf("the pattern %q: %v", r.object, err)
		}
		p.at += end + 1
		p.blanks(false)
	}
	if p.take('@') {
		if err := p.when(&r); err != nil {
			return r, err
		}
		p.blanks(false)
	}
	if !p.take('=') {
		return r, p.errorf("want = and what the call does")
	}
	for {
		p.blanks(false)
		a, err := p.action()
		if err != nil {
			return r, err
		}
		r.do = append(r.do, a)
		p.blanks(false)
		if !p.take(',') {
			break
		}
	}
	return r, p.sequence(r.do)
}

func (p *parser) number(what string) (int64, error) {
	begin := p.at
	n, err := strconv.ParseInt(p.word(""), 10, 64)
	if err != nil || n < 0 || n >= maxNumber {
		p.at = begin
		return 0, p.errorf("want %s", what)
	}
	return n, nil
}

func (p *parser) when(r *rule) (err error) {
	const want = "a call's number, from 1 on: N, N-M or N+"
	p.blanks(false)
	if r.from, err = p.number(want); err != nil {
		return err
	}
	r.to = r.from
	switch {
	case p.take('+'):
		r.to = maxNumber
	case p.take('-'):
		if r.to, err = p.number(want); err != nil {
			return err
		}
	}
	if r.from < 1 || r.to < r.from {
		return p.errorf("want %s", want)
	}
	return nil
}

func (p *parser) action() (a action, err error) {
	begin := p.at
	a.verb = verb(p.word(""))
	switch a.verb {
	case verbDo, verbHang:
		return a, nil
	case verbDelay:
		p.blanks(false)
		begin = p.at
		a.delay, err = time.ParseDuration(p.word(".µ"))
		if err != nil || a.delay < 0 {
			p.at = begin
			return a, p.errorf("want a duration, such as 200ms")
		}
		return a, nil
	case verbBreak:
		p.blanks(false)
		if a.bytes, err = p.number("a number of bytes"); err != nil {
			return a, err
		}
	case verbFail, verbPanic:
	default:
		p.at = begin
		return a, p.errorf("want one of do, delay, hang, fail, panic, break")
	}
	return a, p.reason(&a)
}

// reason reads the kind and the text of an error.
func (p *parser) reason(a *action) (err error) {
	p.blanks(false)
	begin := p.at
	if a.kind = p.word("-"); a.kind != "" && (kinds[a.kind] == nil || a.verb == verbPanic) {
		p.at = begin
		if a.verb == verbPanic {
			return p.errorf("want a text in double quotes: a panic has no kind")
		}
		return p.errorf("want a kind of error: %s", strings.Join(Kinds(), ", "))
	}
	p.blanks(false)
	if p.peek() != '"' {
		return nil
	}
	quoted, err := strconv.QuotedPrefix(p.text[p.at:])
	if err == nil {
		a.text, err = strconv.Unquote(quoted)
	}
	if err != nil {
		return p.errorf("want a text in double quotes, as Go writes it")
	}
	p.at += len(quoted)
	return nil
}

// sequence refuses actions that nothing would come of.
func (p *parser) sequence(list []action) error {
	done := false
	for i, a := range list {
		switch a.verb {
		case verbDo:
			if done {
				return p.errorf("a call does its work once: there are two do")
			}
			done = true
		case verbBreak:
			if !done {
				return p.errorf("there is no stream to break before do")
			}
		case verbFail, verbPanic, verbHang:
			if i < len(list)-1 {
				return p.errorf("nothing follows %s", a.verb)
			}
		}
	}
	return nil
}
