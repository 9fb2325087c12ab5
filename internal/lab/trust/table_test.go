package trust

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	rows, err := Read(strings.NewReader(`{"part":"fault","what":"tap overrun","tried":3,"of":"times","probes":1}
{"part":"forged","what":"SYN-ACKs","tried":1200000,"of":"segments","probes":60000,"note":"each counted"}
{"part":"fault","what":"tap overrun","tried":5,"of":"times","probes":2345,"discarded":17,"recovery":1234000000}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `### Forged segments

| what | tried | verdicts | false | discarded as ours | recovery | left behind | |
|---|---|---|---|---|---|---|---|
| SYN-ACKs | 1,200,000 segments | 60,000 | 0 | 0 |  | 0 | each counted |

### Faults

| what | tried | verdicts | false | discarded as ours | recovery | left behind | |
|---|---|---|---|---|---|---|---|
| tap overrun | 5 times | 2,345 | 0 | 17 | 1.23s | 0 |  |

`
	if got := Table(rows); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := short(1234567 * time.Nanosecond); got != "1.23ms" {
		t.Error(got)
	}
}
