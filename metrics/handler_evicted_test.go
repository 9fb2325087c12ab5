package metrics

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A scrape that nobody waits for any more ends with its next piece.
func TestScrapeThatIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rsp := httptest.NewRecorder()
	scenario(t).Handler(nil).ServeHTTP(rsp, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
	if n := rsp.Body.Len(); n != 0 {
		t.Errorf("%d octets were written", n)
	}
}
