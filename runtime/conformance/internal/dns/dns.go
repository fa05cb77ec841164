// Package dns reads and writes the few DNS messages that the conformance suite
// needs: one question, and an answer of addresses. It is for tests alone: it
// uses the standard library only, since the probe must build without modules.
package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
)

// Types of records.
const (
	TypeA    = 1
	TypePTR  = 12
	TypeTXT  = 16
	TypeAAAA = 28
)

// Response codes.
const (
	RCodeSuccess  = 0
	RCodeNXDomain = 3
)

var errShort = errors.New("dns: the message is cut off")

// Query makes a recursive query.
func Query(id uint16, name string, typ uint16) []byte {
	m := binary.BigEndian.AppendUint16(nil, id)
	m = append(m, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	m = appendName(m, name)
	m = binary.BigEndian.AppendUint16(m, typ)
	return binary.BigEndian.AppendUint16(m, 1)
}

func appendName(m []byte, name string) []byte {
	for label := range strings.SplitSeq(strings.Trim(name, "."), ".") {
		if label == "" {
			continue
		}
		label = label[:min(len(label), 63)]
		m = append(append(m, byte(len(label))), label...)
	}
	return append(m, 0)
}

// Question is a query's only question.
type Question struct {
	ID   uint16
	Name string // lower case, no dot at the end
	Type uint16
}

// ParseQuery reads a query.
func ParseQuery(m []byte) (Question, error) {
	if len(m) < 12 {
		return Question{}, errShort
	}
	name, rest, err := readName(m, 12)
	if err != nil {
		return Question{}, err
	}
	if len(m) < rest+4 {
		return Question{}, errShort
	}
	return Question{binary.BigEndian.Uint16(m), strings.ToLower(name), binary.BigEndian.Uint16(m[rest:])}, nil
}

// Reply answers a query with addresses of the type that it asked for.
func Reply(query []byte, rcode byte, addrs ...netip.Addr) ([]byte, error) {
	q, err := ParseQuery(query)
	if err != nil {
		return nil, err
	}
	_, end, _ := readName(query, 12)
	m := append([]byte(nil), query[:end+4]...)
	m[2], m[3] = 0x85, 0x80|rcode
	clear(m[4:12])
	m[5] = 1
	for _, a := range addrs {
		typ := uint16(TypeA)
		if a.Is6() {
			typ = TypeAAAA
		}
		if typ != q.Type {
			continue
		}
		m[7]++
		m = append(m, 0xc0, 12)
		m = binary.BigEndian.AppendUint16(m, typ)
		m = append(m, 0, 1, 0, 0, 0, 1)
		m = binary.BigEndian.AppendUint16(m, uint16(a.BitLen()/8))
		m = append(m, a.AsSlice()...)
	}
	return m, nil
}

// ParseReply reads the response code and the addresses of a reply.
func ParseReply(m []byte) (rcode int, addrs []netip.Addr, err error) {
	if len(m) < 12 {
		return 0, nil, errShort
	}
	at := 12
	for range binary.BigEndian.Uint16(m[4:]) {
		if _, at, err = readName(m, at); err != nil {
			return 0, nil, err
		}
		at += 4
	}
	for range binary.BigEndian.Uint16(m[6:]) {
		if _, at, err = readName(m, at); err != nil {
			return 0, nil, err
		}
		if len(m) < at+10 {
			return 0, nil, errShort
		}
		typ, size := binary.BigEndian.Uint16(m[at:]), int(binary.BigEndian.Uint16(m[at+8:]))
		if at += 10; len(m) < at+size {
			return 0, nil, errShort
		}
		if a, ok := netip.AddrFromSlice(m[at : at+size]); ok && (typ == TypeA || typ == TypeAAAA) {
			addrs = append(addrs, a)
		}
		at += size
	}
	return int(m[3] & 0xf), addrs, nil
}

// readName reads a name and returns where it ends.
func readName(m []byte, at int) (string, int, error) {
	var labels []string
	end := -1
	for range 128 {
		if at >= len(m) {
			return "", 0, errShort
		}
		n := int(m[at])
		switch {
		case n == 0:
			if end < 0 {
				end = at + 1
			}
			return strings.Join(labels, "."), end, nil
		case n&0xc0 == 0xc0:
			if at+1 >= len(m) {
				return "", 0, errShort
			}
			if end < 0 {
				end = at + 2
			}
			at = n&0x3f<<8 | int(m[at+1])
		case at+1+n > len(m):
			return "", 0, errShort
		default:
			labels = append(labels, string(m[at+1:at+1+n]))
			at += 1 + n
		}
	}
	return "", 0, errors.New("dns: a name has no end")
}
