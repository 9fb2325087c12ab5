package monitoring

import (
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func TestX(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	e, err := p.ParseExpr("up")
	t.Log(e, err)
}
