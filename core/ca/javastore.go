package ca

import (
	"bytes"
	"crypto/sha1" // the format's own checksum, which protects nothing here
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf16"
)

// JavaStorePassword is the password that Java expects of a trust store unless told
// otherwise. It guards nothing: roots are public.
const JavaStorePassword = "changeit"

// JavaStore returns the bundle as a Java trust store (JKS), which every Java reads:
// `-Djavax.net.ssl.trustStore=FILE`.
func (b *Bundle) JavaStore(now time.Time) []byte {
	var out bytes.Buffer
	u32 := func(v uint32) { out.Write(binary.BigEndian.AppendUint32(nil, v)) }
	// Go's strings here are ASCII, for which Java's modified UTF-8 is the same.
	text := func(s string) {
		out.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s))))
		out.WriteString(s)
	}
	u32(0xfeedfeed) // magic
	u32(2)          // version
	u32(uint32(len(b.Certs)))
	for i, c := range b.Certs {
		u32(2) // a trusted certificate
		text(fmt.Sprintf("root-%04d", i))
		out.Write(binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli())))
		text("X.509")
		u32(uint32(len(c.Raw)))
		out.Write(c.Raw)
	}
	sum := sha1.New()
	for _, u := range utf16.Encode([]rune(JavaStorePassword)) {
		sum.Write([]byte{byte(u >> 8), byte(u)})
	}
	sum.Write([]byte("Mighty Aphrodite"))
	sum.Write(out.Bytes())
	return sum.Sum(out.Bytes())
}
