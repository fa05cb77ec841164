package trust

import (
	"crypto/sha1" // the format's own hash, which protects nothing here
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// SubjectHash is the hash by which OpenSSL, from 1.0.0 on, finds an authority in a
// directory: the file is called by its eight digits and a number from 0 on ("9d66eef0.0").
// It is the beginning of the SHA-1 of the subject in canonical form, as `openssl x509
// -subject_hash` prints it (X509_NAME_hash; crypto/x509/x_name.c).
func SubjectHash(cert *x509.Certificate) (string, error) {
	var name []attributeSET
	if rest, err := asn1.Unmarshal(cert.RawSubject, &name); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("the subject of %q cannot be read: %w", cert.Subject, err)
	}
	sum := sha1.New()
	for _, set := range name {
		for i := range set {
			set[i].Value = canonical(set[i].Value)
		}
		der, err := asn1.Marshal(set)
		if err != nil {
			return "", fmt.Errorf("the subject of %q cannot be written: %w", cert.Subject, err)
		}
		_, _ = sum.Write(der) // a hash's Write does not fail
	}
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum.Sum(nil))), nil
}

// attribute is an AttributeTypeAndValue.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeSET is a RelativeDistinguishedName: the name's end makes it a SET OF.
type attributeSET []attribute

const tagVisibleString = 26

// canonical makes a string a UTF-8 one in lower case (of ASCII alone) whose white space
// is single blanks, none at either end. What is no string that crypto/x509 knows stays as it is.
func canonical(v asn1.RawValue) asn1.RawValue {
	if v.Class != asn1.ClassUniversal {
		return v
	}
	var s string
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, tagVisibleString:
		s = string(v.Bytes)
	case asn1.TagT61String: // taken for Latin-1
		var b strings.Builder
		for _, c := range v.Bytes {
			b.WriteRune(rune(c))
		}
		s = b.String()
	case asn1.TagBMPString:
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		s = string(utf16.Decode(units))
	default:
		return v
	}
	words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) })
	lower := []byte(strings.Join(words, " "))
	for i, c := range lower {
		if c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: lower}
}
