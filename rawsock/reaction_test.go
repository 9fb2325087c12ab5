package rawsock

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// BenchmarkReaction answers SYN-ACKs on guarded ports, at a rate of handshakes, and
// reports how long they wait: from a tap's stamp of the SYN-ACK to that of our RST.
// What wakes the loop and gives it the segment differs:
//
//   - bell: a TPACKET_V2 ring, read when a raw socket has rung, as the engine does it,
//   - v2: the same ring, which wakes by itself,
//   - v3: a TPACKET_V3 ring, whose blocks come after a ms at the latest, if the kernel's
//     timer is as fine,
//   - raw: a raw socket that is read itself.
//
// Answers of a peer on a veth are there before the system call that sends has returned.
func BenchmarkReaction(b *testing.B) {
	for _, rate := range []int{1000, 10_000} {
		for _, how := range []string{"bell", "v2", "v3", "raw"} {
			b.Run(fmt.Sprintf("rate=%d/%s", rate, how), func(b *testing.B) { benchmarkReaction(b, rate, how) })
		}
	}
}

// A source of segments for the loop.
type segments struct {
	fds   []int
	rang  func()
	drain func(packet func([]byte))
	close func()
}

const reactionPorts = 64

func openSegments(b *testing.B, how string) segments {
	b.Helper()
	const first, last = 61000, 61000 + reactionPorts - 1
	switch how {
	case "bell", "v2":
		tap, err := OpenTap(TapConfig{FirstPort: first, LastPort: last})
		if err != nil {
			b.Fatal(err)
		}
		s := segments{fds: []int{tap.FD()}, rang: func() {}, close: func() { _ = tap.Close() }}
		s.drain = func(packet func([]byte)) {
			tap.Drain(1<<20, func(f *Frame) {
				if !f.Outgoing {
					packet(f.Data)
				}
			})
		}
		if how == "bell" {
			bell, err := OpenBell(first, last)
			if err != nil {
				b.Fatal(err)
			}
			s.fds, s.rang = bell.FDs(), bell.Silence
			s.close = func() { _, _ = bell.Close(), tap.Close() }
		}
		return s
	case "v3":
		return openBlocks(b, first, last)
	}
	fd, err := openBell(unix.AF_INET, first, last)
	if err != nil {
		b.Fatal(err)
	}
	whole := bellFilter(unix.ETH_P_IP, first, last)
	whole[len(whole)-2] = bpf.RetConstant{Val: 1 << 16} // where the bell keeps an octet
	code, err := kernelFilter(whole)
	if err != nil {
		b.Fatal(err)
	}
	if err := attachFilter(fd, code); err != nil {
		b.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 2048)
	return segments{
		fds: []int{fd}, rang: func() {}, close: func() { _ = unix.Close(fd) },
		drain: func(packet func([]byte)) {
			for {
				n, err := unix.Read(fd, buf)
				if err != nil {
					return
				}
				packet(buf[:n])
			}
		},
	}
}

// openBlocks maps a TPACKET_V3 ring with blocks that are closed after a ms.
func openBlocks(b *testing.B, first, last uint16) segments {
	b.Helper()
	const blockLen, blocks = 64 << 10, 64
	fail := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	program, err := portFilter(first, last, 256)
	fail(err)
	code, err := kernelFilter(program)
	fail(err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	fail(err)
	fail(attachFilter(fd, code))
	fail(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3))
	fail(unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{
		Block_size: blockLen, Block_nr: blocks, Frame_size: 2048, Frame_nr: blockLen / 2048 * blocks, Retire_blk_tov: 1,
	}))
	mem, err := unix.Mmap(fd, 0, blockLen*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	fail(err)
	fail(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}))
	next := 0
	return segments{
		fds: []int{fd}, rang: func() {}, close: func() { _, _ = unix.Munmap(mem), unix.Close(fd) },
		drain: func(packet func([]byte)) {
			for {
				block := mem[next*blockLen : (next+1)*blockLen]
				// struct tpacket_block_desc: version, offset, then tpacket_hdr_v1.
				status := (*uint32)(unsafe.Pointer(&block[8]))
				if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
					return
				}
				n, at := binary.NativeEndian.Uint32(block[12:]), binary.NativeEndian.Uint32(block[16:])
				for range n {
					h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
					link := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&block[at+uint32(unsafe.Sizeof(*h))]))
					if link.Pkttype != unix.PACKET_OUTGOING {
						packet(block[at+uint32(h.Mac):][:h.Snaplen])
					}
					at += h.Next_offset
				}
				atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
				next = (next + 1) % blocks
			}
		},
	}
}

func benchmarkReaction(b *testing.B, rate int, how string) {
	const seconds, tick = 2, 500 * time.Microsecond
	here, there := newVeth(b)
	there.run(b, "ip route add local 198.18.64.0/20 dev lo")
	here.run(b, "ip route add 198.18.64.0/20 via 198.18.0.2")
	listen(b, there, 443)
	watch := newTap(b, here, TapConfig{FirstPort: 61000, LastPort: 61000 + reactionPorts - 1, RingBytes: 128 << 20})
	sender := newSender(b, here)
	var all []time.Duration
	var cpu time.Duration
	here.must(b, func() error {
		runtime.LockOSThread()
		if err := PreciseTimers(); err != nil {
			return err
		}
		guarded, err := GuardPorts(61000, 61000+reactionPorts-1)
		if err != nil {
			return err
		}
		defer guarded.Close()
		s := openSegments(b, how)
		defer s.close()
		poller, err := NewPoller(s.fds...)
		if err != nil {
			return err
		}
		defer poller.Close()
		b.ResetTimer()
		for range b.N {
			used := threadTime()
			react(s, sender, poller, rate, seconds*time.Second, tick)
			cpu += threadTime() - used
			all = append(all, waits(watch)...)
		}
		return nil
	})
	if len(all) == 0 {
		b.Fatal("no SYN-ACK was answered")
	}
	slices.Sort(all)
	p := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1e3 }
	b.ReportMetric(p(0.5), "p50-µs")
	b.ReportMetric(p(0.99), "p99-µs")
	b.ReportMetric(p(0.999), "p99.9-µs")
	b.ReportMetric(float64(len(all))/float64(seconds*b.N), "answered/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(len(all)), "cpu-µs/handshake")
	b.ReportMetric(0, "ns/op")
}

// react is the loop: SYNs by the tick, and a RST for each SYN-ACK that it is woken for.
func react(s segments, sender *Sender, poller *Poller, rate int, d, tick time.Duration) {
	from := netip.MustParseAddr("198.18.0.1")
	var syns, rsts []Packet
	failed := func(int, error) {}
	answer := func(ip []byte) {
		tcp := ip[int(ip[0]&0xf)*4:]
		if tcp[tcpFlags] != syn|ack {
			return
		}
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:])), binary.BigEndian.Uint16(tcp))
		r := seg{from: netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp[2:])), to: to, flags: rst, seq: binary.BigEndian.Uint32(tcp[8:])}
		rsts = append(rsts, r.packet())
	}
	began := time.Now()
	for sent := 0; ; {
		elapsed := time.Since(began)
		if elapsed > d {
			return
		}
		due := int(elapsed/tick) * int(tick) * rate / int(time.Second)
		syns = syns[:0]
		for ; sent < due; sent++ {
			to := netip.AddrFrom4([4]byte{198, 18, 64 + byte(sent>>8&15), byte(sent)})
			syns = append(syns, seg{from: netip.AddrPortFrom(from, uint16(61000+sent%reactionPorts)), to: netip.AddrPortFrom(to, 443), flags: syn, seq: uint32(sent)}.packet())
		}
		if len(syns) > 0 {
			sender.Send(syns, failed)
		}
		next := time.Duration(int(time.Since(began)/tick)+1) * tick
		if ready, _ := poller.Wait(max(next-time.Since(began), 0), true); ready {
			s.rang()
		}
		rsts = rsts[:0]
		s.drain(answer)
		if len(rsts) > 0 {
			sender.Send(rsts, failed)
		}
	}
}

// waits reads what the watching tap saw: from each SYN-ACK to its RST.
func waits(tap *Tap) (all []time.Duration) {
	type key struct {
		addr [4]byte
		port uint16
	}
	came := make(map[key]int64)
	tap.Drain(1<<30, func(f *Frame) {
		tcp := f.Data[int(f.Data[0]&0xf)*4:]
		switch {
		case !f.Outgoing && tcp[tcpFlags] == syn|ack:
			came[key{[4]byte(f.Data[12:]), binary.BigEndian.Uint16(tcp[2:])}] = f.Wall
		case f.Outgoing && tcp[tcpFlags]&rst != 0:
			k := key{[4]byte(f.Data[16:]), binary.BigEndian.Uint16(tcp)}
			if at := came[k]; at != 0 {
				all = append(all, time.Duration(f.Wall-at))
				delete(came, k)
			}
		}
	})
	return all
}

// threadTime is what the calling thread has used of a processor.
func threadTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
