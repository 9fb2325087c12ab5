package trust

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// A kernelCount is a peer's kernel's own account of what came and went.
type kernelCount struct {
	arrived, answered int // TCP segments in all, before any fault of the peer
	syns, synacks     int // of half_open probes
	again             int // of synacks: retransmitted
}

var nftCounter = regexp.MustCompile(`counter (\w+) \{\s*packets (\d+)`)

// counted reads it.
func (p *soakPeer) counted(t *testing.T) kernelCount {
	t.Helper()
	out, err := p.Command(context.WithoutCancel(t.Context()), "nft", "list", "counters", "table", "inet", "soak").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	named := make(map[string]int)
	for _, m := range nftCounter.FindAllStringSubmatch(string(out), -1) {
		if named[m[1]], err = strconv.Atoi(m[2]); err != nil {
			t.Fatal(err)
		}
	}
	if len(named) != 4 {
		t.Fatalf("nft: %d counters\n%s", len(named), out)
	}
	return kernelCount{named["arrived"], named["answered"], named["syns"], named["synacks"], int(p.Counters()["TcpExtTCPSynRetrans"])}
}

// holdAgainst holds probed's verdicts against the peer's kernel, and returns how many
// this does not bear out: a success is a SYN-ACK that the peer sent; and a SYN-ACK that
// it sent is a success, unless a device dropped it, or it came late or again, or the
// probe was given up as ours. first was read before the kernel's counters, last after.
func (s *soak) holdAgainst(p *soakPeer, k kernelCount, first, last figures) (mistaken int) {
	s.t.Helper()
	_, dropped := p.lost(s.t)
	if n := p.good(first) - k.synacks; n > 0 {
		s.t.Errorf("%s: %d successes more than the peer sent SYN-ACKs", p.job, n)
		mistaken += n
	}
	excused := last.of("probed_probes_discarded_total", p.job) + last.of("probed_synack_late_total", p.job) + k.again + dropped
	if n := k.synacks - p.good(last) - excused; n > 0 {
		s.t.Errorf("%s: %d SYN-ACKs that the peer sent were neither believed (%d) nor late, dropped, again or of a discarded probe (%d)", p.job, n, p.good(last), excused)
		mistaken += n
	}
	s.t.Logf("%s: kernel %+v; %d good, %d failed, %d discarded, %d late", p.job, k, p.good(last), last.of(failuresMetric, p.job),
		last.of("probed_probes_discarded_total", p.job), last.of("probed_synack_late_total", p.job))
	return mistaken
}

// agree takes the targets away and then holds probed's counters of segments against
// the kernels', as the bench does: what a device dropped and what the tap says it lost
// is all that may be missing.
func (s *soak) agree() (unexplained int) {
	s.t.Helper()
	s.d.write("jobs: []\n")
	if code, body := s.d.do("POST", "/-/reload"); code != 200 {
		s.t.Fatalf("reload: %d %s", code, body)
	}
	var said string
	began, moved := time.Now(), time.Now()
	for {
		f := s.figures()
		calm, rough := s.calm.counted(s.t), s.rough.counted(s.t)
		calmThere, calmBack := s.calm.lost(s.t)
		roughThere, roughBack := s.rough.lost(s.t)
		sent, received := f.of("probed_segments_sent_total", ""), f.of("probed_segments_received_total", "")
		unseen := f.of("probed_tap_drops_total", "")
		there, back := calmThere+roughThere, calmBack+roughBack
		thither := beyond(calm.arrived+rough.arrived-sent, -there, unseen)
		hither := beyond(calm.answered+rough.answered-received, 0, unseen+back)
		now := fmt.Sprintf("%d sent, %d arrived, %d dropped; %d sent back, %d received, %d dropped; %d lost by the tap",
			sent, calm.arrived+rough.arrived, there, calm.answered+rough.answered, received, back, unseen)
		if now != said {
			said, moved = now, time.Now()
		}
		unexplained = thither + hither
		if unexplained == 0 {
			s.t.Log(said)
			return 0
		}
		if time.Since(moved) > settled || time.Since(began) > patience {
			s.t.Errorf("%d segments unexplained: %s", unexplained, said)
			return unexplained
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// settled is for how long nothing moves any more, when nothing will: no loop here is as
// late.
const settled = 5 * time.Second

// beyond is how far n is outside of a range.
func beyond(n, least, most int) int { return max(0, least-n, n-most) }
