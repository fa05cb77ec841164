package dns

import (
	"net/netip"
	"slices"
	"testing"
)

func TestAReplyHoldsTheAddressesOfTheTypeAskedFor(t *testing.T) {
	v4, v6 := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")
	for typ, want := range map[uint16]netip.Addr{TypeA: v4, TypeAAAA: v6} {
		query := Query(7, "Some.Name.test.", typ)
		q, err := ParseQuery(query)
		if err != nil || q != (Question{7, "some.name.test", typ}) {
			t.Fatalf("question: %+v, %v", q, err)
		}
		reply, err := Reply(query, RCodeSuccess, v4, v6)
		if err != nil {
			t.Fatal(err)
		}
		rcode, addrs, err := ParseReply(reply)
		if err != nil || rcode != RCodeSuccess || !slices.Equal(addrs, []netip.Addr{want}) {
			t.Errorf("type %d: rcode %d, %v, %v; want %v", typ, rcode, addrs, err, want)
		}
	}
}

func FuzzMessagesNeverPanic(f *testing.F) {
	f.Add(Query(1, "a.test", TypeA))
	f.Fuzz(func(_ *testing.T, m []byte) {
		_, _ = ParseQuery(m)
		_, _, _ = ParseReply(m)
		_, _ = Reply(m, 0, netip.MustParseAddr("198.51.100.7"))
	})
}
