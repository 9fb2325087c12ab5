package status

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// pageSize is how many targets a page of the list shows, and of the API unless
// asked otherwise; most is the API's bound.
const (
	pageSize    = 100
	mostAtOnce  = 1000
	maxText     = 1000 // octets of free text
	defaultSort = "state"
)

// sorts are what rows can be sorted by, each with whether the first click on its
// header sorts downwards.
var sorts = map[string]bool{
	"state": false, "target": false, "job": false, "kind": false, "interval": false,
	"loss": true, "p50": true, "p99": true, "failure": true,
}

// A query is what a viewer wants to see.
type query struct {
	text  string // as typed
	terms []term
	state state // only those in it; empty for all
	sort  string
	down  bool   // sort downwards
	group string // label to group by; empty for none
	page  int    // from 1
	limit int    // rows a page
}

// A term is one of the words that are all looked for.
type term struct {
	label, value string // label=value, exactly
	folded       string // anywhere, lower case
}

// parseQuery reads a URL's query. Its error says what is wrong with which
// parameter.
func parseQuery(v url.Values, most int) (*query, error) {
	// What is shown again is UTF-8, as the page is.
	text := func(name string) string { return strings.ToValidUTF8(v.Get(name), "\uFFFD") }
	q := &query{text: strings.TrimSpace(text("q")), state: state(v.Get("state")), group: text("group"), page: 1, limit: min(pageSize, most)}
	var errs []error
	if len(q.text) > maxText {
		errs = append(errs, fmt.Errorf("q: longer than %d octets", maxText))
	} else {
		q.terms = parseTerms(q.text)
	}
	if q.state != "" && !slices.Contains(states, q.state) {
		errs = append(errs, fmt.Errorf("state: %q is none: write down, ours, unknown or up", q.state))
	}
	q.sort, q.down = strings.CutPrefix(v.Get("sort"), "-")
	if q.sort == "" && !q.down {
		q.sort = defaultSort
	}
	if _, ok := sorts[q.sort]; !ok && q.sort != "config" {
		errs = append(errs, fmt.Errorf("sort: cannot sort by %q: write state, target, job, kind, interval, loss, p50, p99, failure or config, with a - before it for the other direction", q.sort))
	}
	if q.sort == "config" {
		q.sort = ""
	}
	q.page = number(v, "page", 1, 1<<30, q.page, &errs)
	q.limit = number(v, "limit", 1, most, q.limit, &errs)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return q, nil
}

// number reads a whole number, or keeps what is the default.
func number(v url.Values, name string, least, most, otherwise int, errs *[]error) int {
	text := v.Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		*errs = append(*errs, fmt.Errorf("%s: %q is no whole number from %d to %d", name, text, least, most))
		return otherwise
	}
	return n
}

// parseTerms splits at blanks. A label's value with blanks is quoted:
// team="net ops".
func parseTerms(text string) []term {
	var all []term
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		var word string
		word, text = cutWord(text)
		name, value, labelled := strings.Cut(word, "=")
		switch {
		case labelled && name != "":
			all = append(all, term{label: name, value: strings.Trim(value, `"`)})
		default:
			all = append(all, term{folded: strings.ToLower(strings.Trim(word, `"`))})
		}
	}
	return all
}

// cutWord cuts at the first blank that is not between quotes.
func cutWord(text string) (word, rest string) {
	quoted := false
	for i, r := range text {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '\t'):
			return text[:i], text[i:]
		}
	}
	return text, ""
}

func (q *query) matches(r *entry) bool {
	for i := range q.terms {
		t := &q.terms[i]
		if t.label != "" && r.target.value(t.label) != t.value || t.label == "" && !strings.Contains(r.folded, t.folded) {
			return false
		}
	}
	return true
}

// key tells selections apart: what of the query is not about the page.
func (q *query) key() string {
	return fmt.Sprintf("%q %s %s %t %q", q.text, q.state, q.sort, q.down, q.group)
}

// with returns the query of a link: this one, changed, less what is the default.
func (q *query) with(change func(*query)) string {
	c := *q
	change(&c)
	v := make(url.Values)
	set := func(name, value, standard string) {
		if value != standard {
			v.Set(name, value)
		}
	}
	set("q", c.text, "")
	set("state", string(c.state), "")
	set("sort", c.sortText(), defaultSort)
	set("group", c.group, "")
	set("page", strconv.Itoa(c.page), "1")
	set("limit", strconv.Itoa(c.limit), strconv.Itoa(pageSize))
	if len(v) == 0 {
		return "/"
	}
	return "/?" + v.Encode()
}

// sortText is the sort parameter.
func (q *query) sortText() string {
	text := q.sort
	if text == "" {
		text = "config"
	}
	if q.down {
		text = "-" + text
	}
	return text
}

// slice returns where the page's rows are among n, the last page's if there are
// fewer.
func (q *query) slice(n int) (from, to, page, pages int) {
	pages = max(1, (n+q.limit-1)/q.limit)
	page = min(q.page, pages)
	from = (page - 1) * q.limit
	return from, min(from+q.limit, n), page, pages
}
