package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Link types of the pcap format, as tcpdump writes them here.
const (
	linkEthernet  = 1
	linkRaw       = 101
	linkLinuxSLL2 = 276
)

// pcap's magic for nanosecond stamps, in the byte order of this machine's
// kernel on every platform we test on.
const pcapNano = 0xa1b23c4d

var errPcap = errors.New("not a whole little-endian nanosecond pcap file")

// parsePcap reads a pcap file as tcpdump writes it. network finds the IP packet
// within a frame of a link type; frames for which it returns nil are left out.
func parsePcap(b []byte, network func(link uint32, frame []byte) (ip []byte, outgoing bool)) ([]CapturedPacket, error) {
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != pcapNano {
		return nil, errPcap
	}
	link := binary.LittleEndian.Uint32(b[20:]) & 0xffff
	if link != linkEthernet && link != linkRaw && link != linkLinuxSLL2 {
		return nil, fmt.Errorf("link type %d", link)
	}
	var packets []CapturedPacket
	for b = b[24:]; len(b) > 0; {
		if len(b) < 16 {
			return nil, errPcap
		}
		sec, nsec := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		have, length := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		if uint64(have) > uint64(len(b)-16) || nsec >= 1e9 {
			return nil, errPcap
		}
		frame := b[16 : 16+have]
		b = b[16+have:]
		ip, outgoing := network(link, frame)
		if ip == nil {
			continue
		}
		packets = append(packets, CapturedPacket{
			Wall: int64(sec)*1e9 + int64(nsec), Data: ip,
			Length: int(length) - (len(frame) - len(ip)), Outgoing: outgoing,
		})
	}
	return packets, nil
}

// network strips the link header. A frame without IP gives nil.
func (c *Capture) network(link uint32, frame []byte) (ip []byte, outgoing bool) {
	const ipv4, ipv6, outgoingType = 0x0800, 0x86dd, 4
	var protocol uint16
	switch link {
	case linkEthernet:
		if len(frame) < 14 {
			return nil, false
		}
		protocol = binary.BigEndian.Uint16(frame[12:])
		outgoing = len(c.hardware) == 6 && bytes.Equal(frame[6:12], c.hardware) && !isZero(c.hardware)
		ip = frame[14:]
	case linkLinuxSLL2:
		if len(frame) < 20 {
			return nil, false
		}
		protocol = binary.BigEndian.Uint16(frame)
		outgoing = frame[10] == outgoingType
		ip = frame[20:]
	case linkRaw:
		// A TUN has no link header: what a host sends has a source that is its own.
		return frame, c.host.isLocal(source(frame))
	}
	if protocol != ipv4 && protocol != ipv6 {
		return nil, false
	}
	return ip, outgoing
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// source is an IP packet's source address, invalid where there is none.
func source(ip []byte) netip.Addr {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(ip[12:16]))
	case len(ip) >= 40 && ip[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(ip[8:24]))
	}
	return netip.Addr{}
}

// hardware is a device's Ethernet address, nil where it has none.
func (h *Host) hardware(iface string) []byte {
	h.lab.tb.Helper()
	var dev *net.Interface
	var err error
	h.Do(func() { dev, err = net.InterfaceByName(iface) })
	if err != nil {
		h.lab.tb.Fatalf("lab: host %s: %s: %v", h.Name, iface, err)
	}
	return dev.HardwareAddr
}
