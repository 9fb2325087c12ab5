package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// victimEnv turns TestAKilledTestLeavesNothing into the test that is killed.
const victimEnv = "PROBED_LAB_VICTIM"

// A victim tells what it has made.
type victim struct {
	Namespaces []uint64 // inodes
	Processes  []int
}

// beAVictim makes one of everything, says so and waits for its end.
func beAVictim(t *testing.T) {
	l := New(t)
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	l.Join(a, b)
	l.Link(b, c, Direction{}, Direction{})
	ScriptedPeer(t, c, []string{"198.18.64.0/18"}, Listen)
	a.AnyIP("198.18.128.0/18")
	a.Serve("tcp", "[::]:80", Discard)
	b.Refuse(80, Drop)
	capture := a.Capture(t, a.Iface(), "", Immediate)
	sleep := a.Command(t.Context(), "sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	// A device of the namespace that the victim runs in, which lives exactly as
	// long as a's namespace does.
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	err = nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "witness"}, PeerName: "witness", PeerNamespace: netlink.NsFd(a.ns.Fd()),
	})
	if err != nil {
		t.Fatal(err)
	}
	v := victim{[]uint64{a.Inode(), b.Inode(), c.Inode()}, []int{os.Getpid(), capture.cmd.Process.Pid, sleep.Process.Pid}}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("victim %s\n", out)
	time.Sleep(time.Minute)
}

func TestAKilledTestLeavesNothing(t *testing.T) {
	if os.Getenv(victimEnv) != "" {
		beAVictim(t)
		return
	}
	t.Parallel()
	named, err := filepath.Glob("/run/netns/*")
	if err != nil {
		t.Fatal(err)
	}
	outside := NewHost(t, "outside") // the victim's own namespace: nothing but lo
	cmd := outside.Command(t.Context(), os.Args[0], "-test.run=^TestAKilledTestLeavesNothing$", "-test.count=1")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var v victim
	for lines := bufio.NewScanner(stdout); len(v.Processes) == 0; {
		if !lines.Scan() {
			t.Fatal("the victim ended on its own")
		}
		if text, ok := strings.CutPrefix(lines.Text(), "victim "); ok {
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := devices(t, outside); got != "lo witness" {
		t.Errorf("while it runs, outside has %s", got)
	}
	if users := usersOf(v.Namespaces); len(users) == 0 {
		t.Error("while it runs, nobody is seen to use its namespaces: this test is blind")
	}
	if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed

	eventually(t, func() string {
		for _, pid := range v.Processes {
			if alive(pid) {
				return fmt.Sprintf("process %d lives", pid)
			}
		}
		return ""
	})
	eventually(t, func() string {
		if users := usersOf(v.Namespaces); len(users) > 0 {
			return fmt.Sprintf("namespaces used by %v", users)
		}
		return ""
	})
	eventually(t, func() string {
		if got := devices(t, outside); got != "lo" {
			return "outside has " + got
		}
		return ""
	})
	after, err := filepath.Glob("/run/netns/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(after) > len(named) {
		t.Errorf("named namespaces before %v, after %v", named, after)
	}
}

// eventually waits until wrong has nothing to say.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		said := wrong()
		if said == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("10 s later: %s", said)
			return
		}
	}
}

// devices lists a host's, from /proc/net/dev.
func devices(t *testing.T, h *Host) string {
	t.Helper()
	var text []byte
	var err error
	h.Do(func() { text, err = os.ReadFile("/proc/thread-self/net/dev") })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}

// alive tells whether a process runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// usersOf lists the threads and descriptors that refer to the namespaces, and
// the mounts that would.
func usersOf(inodes []uint64) (users []string) {
	for _, glob := range []string{"/proc/[0-9]*/task/*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(glob)
		if err != nil {
			panic(err) // the pattern is bad
		}
		for _, path := range paths {
			to, err := os.Readlink(path)
			if err != nil {
				continue // gone meanwhile
			}
			for _, inode := range inodes {
				if to == fmt.Sprintf("net:[%d]", inode) {
					users = append(users, path)
				}
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	for _, inode := range inodes {
		if strings.Contains(string(mounts), fmt.Sprintf("net:[%d]", inode)) {
			users = append(users, "a mount")
		}
	}
	return users
}

func TestAnEndedTestLeavesNothing(t *testing.T) {
	t.Parallel()
	var inodes []uint64
	var pids []int
	outside := NewHost(t, "outside")
	t.Run("lab", func(t *testing.T) {
		l := New(t)
		a, b := l.Host("a"), l.Host("b")
		l.Join(a, b)
		l.Link(a, b, Direction{}, Direction{})
		a.Serve("tcp", "[::]:80", Discard)
		if got := dial(t, b, hostPort(a.Addr4(), 80), time.Second); got != "connected" {
			t.Error(got)
		}
		capture := a.Capture(t, "any", "", Immediate)
		sleep := b.Command(t.Context(), "sleep", "600")
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _ = sleep.Wait() }()
		inodes = []uint64{a.Inode(), b.Inode()}
		pids = []int{capture.cmd.Process.Pid, sleep.Process.Pid}
		outside.netlink("witness", func(nl *netlink.Handle) error {
			return nl.LinkAdd(&netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: "witness"}, PeerName: "witness", PeerNamespace: netlink.NsFd(a.ns.Fd()),
			})
		})
	})
	eventually(t, func() string {
		for _, pid := range pids {
			if alive(pid) {
				return fmt.Sprintf("process %d lives", pid)
			}
		}
		return ""
	})
	eventually(t, func() string {
		if users := usersOf(inodes); len(users) > 0 {
			return fmt.Sprintf("namespaces used by %v", users)
		}
		return ""
	})
	eventually(t, func() string {
		if got := devices(t, outside); got != "lo" {
			return "outside has " + got
		}
		return ""
	})
}

func TestParallelLabsDoNotMeet(t *testing.T) {
	t.Parallel()
	for i := range 6 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			n := 100 * (i + 1)
			k, _ := linked(t, Direction{}, Direction{})
			capture := k.B.Host.Capture(t, k.B.Iface, "udp", Immediate)
			datagrams(t, k, 5000, n, 12, 0)
			k.AtoB.Settle(5 * time.Second)
			if got := len(capture.Packets()); got != n {
				t.Errorf("%d packets, want %d", got, n)
			}
			if got := len(k.AtoB.Records()); got != n {
				t.Errorf("%d records, want %d", got, n)
			}
		})
	}
}
