package show

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"

	"github.com/probed/probed/probe"
)

// A Capture is a pcapng file of conversations, as Wireshark reads it: nanosecond
// stamps (the kernel's, those that the figures are differences of), the direction
// of each packet, and what was concluded from it as its comments.
//
// The packets are made anew from what is kept of them. Headers are whole, options
// and checksums included. Payloads are not kept: a segment with data ends after
// its header, like one captured with a small snapshot length, and its checksum
// field is 0. IPv4 identification and the IPv6 flow label are 0. Of an ICMP error
// sender, type, code and the quoted segment are real; its TTL is not known, and
// stands as 64.
type Capture struct {
	w     io.Writer
	block block
}

// NewCapture begins a capture. version is probed's own, for the file's header.
func NewCapture(w io.Writer, version string) (*Capture, error) {
	p := &Capture{w: w}
	k := &p.block
	k.begin(blockSection)
	k.u32(byteOrderMagic)
	k.u16(1) // version 1.0
	k.u16(0)
	k.u64(math.MaxUint64) // the section's length is not known beforehand
	k.text(sectionHardware, runtime.GOARCH)
	k.text(sectionOS, runtime.GOOS)
	k.text(sectionApplication, "probed "+SafeText(version))
	if err := p.end(); err != nil {
		return nil, err
	}
	k.begin(blockInterface)
	k.u16(linkTypeRaw)
	k.u16(0)
	k.u32(0) // no snapshot length
	k.option(interfaceResolution, []byte{9})
	if err := p.end(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Capture) end() error {
	if err := p.block.end(p.w); err != nil {
		return fmt.Errorf("show: write capture: %w", err)
	}
	return nil
}

// Write appends a conversation's packets. Write the older of two conversations
// first: readers expect time to go on.
func (p *Capture) Write(c *Conversation) error {
	if !c.Tuple.Local.IsValid() || !c.Tuple.Remote.IsValid() {
		return nil // nothing was opened, so nothing crossed a wire
	}
	comments := c.comments()
	var packet []byte
	for i := range c.Steps {
		s := &c.Steps[i]
		if s.Way == Here {
			continue
		}
		var length int
		packet, length = c.appendPacket(packet[:0], i)
		if err := p.packet(s, packet, length, comments[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Capture) packet(s *Step, packet []byte, length int, comments []string) error {
	k := &p.block
	k.begin(blockPacket)
	k.u32(0) // the interface
	k.u32(uint32(uint64(s.Wall) >> 32))
	k.u32(uint32(uint64(s.Wall)))
	k.u32(uint32(len(packet)))
	k.u32(uint32(min(int64(length), math.MaxUint32)))
	k.b = append(k.b, packet...)
	k.pad()
	for _, text := range comments {
		k.text(optionComment, text)
	}
	flags := uint32(packetInbound)
	if s.Way == Out {
		flags = packetOutbound
	}
	k.option(packetFlags, binary.LittleEndian.AppendUint32(nil, flags))
	return p.end()
}

// comments are what there is to say of each step that has a packet. What happened
// between two packets is said of the one before; what happened before the first, of
// that.
func (c *Conversation) comments() [][]string {
	list := make([][]string, len(c.Steps))
	var early []string
	at := -1 // the last step that has a packet
	say := func(text string) {
		switch {
		case text == "":
		case at < 0:
			early = append(early, text)
		default:
			list[at] = append(list[at], text)
		}
	}
	var local, peer probe.State
	for i := range c.Steps {
		s := &c.Steps[i]
		if c.Lost > 0 && i == c.LostAt {
			say(fmt.Sprintf("%d steps after this one were not kept", c.Lost))
		}
		if s.Way == Here {
			say(hereText(s) + " at " + FormatDuration(s.At))
		} else {
			at = i
			list[at], early = early, nil
			say(noteText(s))
		}
		if s.Local != local || s.Peer != peer {
			local, peer = s.Local, s.Peer
			say(fmt.Sprintf("we: %s, peer: %s", local, peer))
		}
		for _, m := range c.Marks {
			if m.To == i && m.From >= 0 {
				say(m.Name + " " + FormatDuration(m.Duration))
			}
		}
	}
	say(strings.Join(append([]string{c.Kind.String() + " verdict: " + c.Verdict()}, c.rest()...), ", "))
	return list
}
