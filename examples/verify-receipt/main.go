// Command verify-receipt verifies receipts of an Authz audit log with trusted keys of heads, and nothing else.
//
//	verify-receipt KEYS.json RECEIPT   prints the facts that the receipt proves; exit code 2: the receipt is refused
//	verify-receipt KEYS.json -         reads receipts, each a line of base64; prints a line for each
package main

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
)

type object = map[string]any

// need refuses the receipt unless a condition holds. The functions that call it panic, and verify recovers.
func need(holds bool, code, text string) {
	if !holds {
		panic(code + ": " + text)
	}
}

// parse reads JSON of which no member stands twice. Numbers stay as they are written.
func parse(content []byte, code string) any {
	need(json.Valid(content), code, "not JSON")
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.UseNumber()
	var value func() any
	value = func() any {
		token, _ := decoder.Token()
		members, items := object{}, []any{}
		for delimiter, isDelimiter := token.(json.Delim); isDelimiter; {
			if !decoder.More() {
				decoder.Token() // The end of the object or list.
				return map[json.Delim]any{'{': members, '[': items}[delimiter]
			}
			item := value()
			if delimiter == '[' {
				items = append(items, item)
				continue
			}
			_, twice := members[item.(string)]
			need(!twice, code, "a member stands twice")
			members[item.(string)] = value()
		}
		return token
	}
	return value()
}

func exactly(value any, code string, names ...string) {
	members, _ := value.(object)
	need(slices.Equal(slices.Sorted(maps.Keys(members)), names), code, "the members are not "+strings.Join(names, ", "))
}

// at returns a member below others; nil if one is missing.
func at(value any, names ...string) any {
	for _, name := range names {
		members, _ := value.(object)
		value = members[name]
	}
	return value
}

func text(value any, names ...string) string   { word, _ := at(value, names...).(string); return word }
func count(value any, name string) json.Number { n, _ := at(value, name).(json.Number); return n }
func hash(parts ...[]byte) []byte              { sum := sha256.Sum256(slices.Concat(parts...)); return sum[:] }
func integer(bytes []byte) *big.Int            { return new(big.Int).SetBytes(bytes) }

func list(value any, names ...string) (texts []string) {
	items, _ := at(value, names...).([]any)
	for _, item := range items {
		texts = append(texts, text(item))
	}
	return texts
}

func unbase64(given, code string) []byte {
	value, err := base64.RawURLEncoding.DecodeString(given)
	need(err == nil && base64.RawURLEncoding.EncodeToString(value) == given, code, "not base64url")
	return value
}

// readKeys returns the keys of a JWK or a JWK Set, by their RFC 7638 thumbprints.
func readKeys(content []byte) object {
	keys, entries := object{}, []any{parse(content, "head_key")}
	if set, isSet := at(entries[0], "keys").([]any); isSet {
		entries = set
	}
	for _, jwk := range entries {
		kind, x := text(jwk, "kty")+" "+text(jwk, "crv"), unbase64(text(jwk, "x"), "head_key")
		required, key, err := `{"crv":"Ed25519","kty":"OKP","x":"`+text(jwk, "x")+`"}`, any(ed25519.PublicKey(x)), error(nil)
		if kind == "EC P-256" {
			required = `{"crv":"P-256","kty":"EC","x":"` + text(jwk, "x") + `","y":"` + text(jwk, "y") + `"}`
			key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, unbase64(text(jwk, "y"), "head_key")))
		}
		isKnown := kind == "EC P-256" || kind == "OKP Ed25519" && len(x) == ed25519.PublicKeySize
		need(isKnown && err == nil && at(jwk, "d") == nil, "head_key", "not a public key of Ed25519 or P-256")
		keys[base64.RawURLEncoding.EncodeToString(hash([]byte(required)))] = key
	}
	return keys
}

// checkHead verifies a head (flattened JWS, RFC 7515 §7.2.2); it returns the statement and the key that signed it.
func checkHead(jws any, keys object) (any, string) {
	need(text(jws, "signature") != "", "head_unsigned", "the head is not signed")
	exactly(jws, "head", "payload", "protected", "signature")
	signature := unbase64(text(jws, "signature"), "head")
	header := parse(unbase64(text(jws, "protected"), "head"), "head")
	head := parse(unbase64(text(jws, "payload"), "head"), "head")
	message, kid := []byte(text(jws, "protected")+"."+text(jws, "payload")), text(header, "kid")
	need(keys[kid] != nil, "head_key", "no trusted key has the `kid` of the signature")
	algorithm, valid := "EdDSA", false
	switch key := keys[kid].(type) {
	case ed25519.PublicKey:
		valid = ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		algorithm, valid = "ES256", len(signature) == 64 && ecdsa.Verify(key, hash(message), integer(signature[:32]), integer(signature[32:]))
	}
	need(text(header, "alg") == algorithm, "head_algorithm", "the algorithm is not that of the trusted key")
	need(valid, "head_signature", "the signature does not verify")
	exactly(header, "head", "alg", "kid", "typ")
	need(text(header, "typ") == "authz-audit-head", "head", "the signature is not one of a head")
	return head, kid
}

var unescape = strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029", "\n", "")
var place = regexp.MustCompile(`"chain":\{"segment":(0|[1-9]\d{0,19}),"index":(0|[1-9]\d{0,19}),"previous":"[0-9a-f]{64}"\}\}$`)

// checkRecord verifies that a record is below a signed head. It returns the record's members, and a sentence about its place.
func checkRecord(proof any, keys object) (any, string) {
	head, kid := checkHead(at(proof, "head"), keys)
	_, isList := at(proof, "path").([]any)
	line, link := text(proof, "record"), place.FindStringSubmatch(text(proof, "record"))
	need(isList && !strings.Contains(line, "\n"), "form", "`path` is not a list, or `record` not a line")
	need(link != nil, "record", "a record names no place in a chain")
	need(link[1] == string(count(head, "segment")), "segment", "a record and its head are of different segments")
	need(link[2] == string(count(proof, "index")), "index", "the index is not that of the record")
	need(count(proof, "count") == count(head, "count"), "count", "the count is not that of the head")
	index, err := count(proof, "index").Int64()
	last, err2 := count(proof, "count").Int64()
	need(err == nil && err2 == nil && index < last, "beyond", "the record stands after the head")
	root, last := hash([]byte("\x00"+line)), last-1 // RFC 9162 §2.1.3.2
	for _, node := range list(proof, "path") {
		sibling, err := hex.DecodeString(node)
		need(err == nil && hex.EncodeToString(sibling) == node && len(sibling) == 32, "form", "`path` is not a list of hashes")
		need(last > 0, "path_length", "the path is too long")
		if index%2 == 1 || index == last {
			root = hash([]byte{1}, sibling, root)
			for ; index%2 == 0 && index > 0; index, last = index/2, last/2 {
			}
		} else {
			root = hash([]byte{1}, root, sibling)
		}
		index, last = index/2, last/2
	}
	need(last == 0, "path_length", "the path is too short")
	need(hex.EncodeToString(root) == text(head, "root"), "path", "the path does not lead from the record to the head")
	return parse([]byte(line), "record"), fmt.Sprintf("record %s of segment %s of node %s, below a head of %s records of %s, signed by key %s",
		link[2], link[1], text(head, "node"), count(head, "count"), text(head, "at"), kid)
}

// checkAnswer verifies that a call relies on an answer. Arguments are `result.approval` of the records.
func checkAnswer(call, answer any) string {
	by, event := list(answer, "by"), text(answer, "event")
	need(len(by) == 1 && (event == "approved" || event == "answered"), "answer", "a record is not one of an approving answer of a person")
	need(text(call, "event") == "consumed" && text(call, "id") == text(answer, "id"), "approval", "an answer is about an approval that the record does not name")
	need(at(call, "digest") == nil || text(call, "digest") == text(answer, "digest"), "call", "an answer is about another call than the record names")
	need(at(call, "card_digests") == nil || slices.Contains(list(call, "card_digests"), text(answer, "card_digest")), "card", "an answer is about another card than the record names")
	proof := "the node recorded an answer by " + text(answer, "method")
	if text(answer, "method") == "passkey" {
		proof = checkAssertion(answer)
	}
	return fmt.Sprintf("%s approved call %s on card %s: %s", by[0], text(answer, "digest"), text(answer, "card_digest"), proof)
}

// checkAssertion verifies that a passkey signed an answer (WebAuthn Level 3 §7.2).
func checkAssertion(answer any) string {
	part := func(name string) []byte { return unbase64(text(answer, "assertion", name), "assertion") }
	data, clientData := part("authenticator_data"), part("client_data")
	need(len(data) >= 37 && data[32]&5 == 5, "assertion", "the passkey did not verify its user")
	client, outcome, statement := parse(clientData, "assertion"), "approve", []byte{}
	if at(answer, "endorses") == true {
		outcome = "endorse"
	}
	challenge := unbase64(text(client, "challenge"), "assertion")
	need(text(client, "type") == "webauthn.get" && len(challenge) == 56, "assertion", "the passkey signed something other than an answer")
	call, _ := hex.DecodeString(text(answer, "digest"))
	card, _ := hex.DecodeString(text(answer, "card_digest"))
	for _, part := range []string{"authz approval answer 1", string(card), string(call), text(answer, "id"), outcome, string(challenge[16:24]), string(challenge[:16])} {
		statement = append(binary.BigEndian.AppendUint64(statement, uint64(len(part))), part...)
	}
	need(string(challenge[24:]) == string(hash(statement)), "challenge", "the passkey signed another answer")
	algorithm := checkPasskey(part("public_key"), append(data, hash(clientData)...), part("signature"))
	return "a passkey signed it, with verification of its user, at " + text(client, "origin") + " (" + algorithm + ")"
}

// checkPasskey verifies a signature. A COSE key of an authenticator has a single form (WebAuthn Level 3 §6.5.1.1).
func checkPasskey(key, message, signature []byte) string {
	form, size, algorithm, valid := hex.EncodeToString(key), len(key), "", false
	switch {
	case size == 77 && strings.HasPrefix(form, "a5010203262001215820") && form[84:90] == "225820":
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, key[10:42], key[45:]))
		algorithm, valid = "ES256", err == nil && ecdsa.VerifyASN1(public, hash(message), signature)
	case size == 42 && strings.HasPrefix(form, "a4010103272006215820"):
		algorithm, valid = "EdDSA", ed25519.Verify(key[10:], message, signature)
	case size > 256 && strings.HasPrefix(form, fmt.Sprintf("a40103033901002059%04x", size-16)) && strings.HasSuffix(form, "2143010001"):
		public := &rsa.PublicKey{N: integer(key[11 : size-5]), E: 65537}
		algorithm, valid = "RS256", rsa.VerifyPKCS1v15(public, crypto.SHA256, hash(message), signature) == nil
	}
	need(valid, "assertion", "the signature of the passkey does not verify")
	return algorithm
}

// verify returns the facts that a receipt proves, or the reason why it is refused.
func verify(content, jwks []byte) (facts []string, refusal error) {
	defer func() {
		if cause := recover(); cause != nil { // A fault of this program refuses the receipt, too.
			refusal = fmt.Errorf("%v", cause)
		}
	}()
	receipt, keys, form := parse(content, "form"), readKeys(jwks), strings.Builder{}
	encoder := json.NewEncoder(&form) // Names of members are ASCII, so that this is RFC 8785 but for three escapes.
	encoder.SetEscapeHTML(false)
	need(encoder.Encode(receipt) == nil && unescape.Replace(form.String()) == string(content), "form", "not canonical JSON (RFC 8785)")
	exactly(receipt, "form", "answers", "count", "head", "index", "path", "policies", "record", "version")
	answers, isList := at(receipt, "answers").([]any)
	texts, isObject := at(receipt, "policies").(object)
	need(isList && isObject && count(receipt, "version") == "1", "form", "not a receipt of version 1")
	record, fact := checkRecord(receipt, keys)
	_, hasResult := at(record, "result").(object)
	need(hasResult && at(record, "sum") == nil, "decision", "the record is not one of a decision")
	facts = append(facts, fact, fmt.Sprintf("decision %s of %s: %s (%s) for %s", text(record, "decision_id"), text(record, "timestamp"),
		text(record, "result", "outcome"), text(record, "result", "reason_code"), text(record, "input", "operation")))
	if names, hashes := list(record, "result", "policies"), list(record, "result", "policies_sha256"); len(texts) > 0 {
		need(len(names) == len(hashes), "policy_hash", "the record does not name the hash of each policy")
		need(slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(maps.Keys(texts))), "policies", "the policies are not those of the record")
		for i, name := range names {
			need(hex.EncodeToString(hash([]byte(text(texts, name)))) == hashes[i], "policy", "a policy has another text than in the record")
		}
		facts = append(facts, "the texts of the policies are those that the record names: "+strings.Join(names, ", "))
	}
	call, people, event := at(record, "result", "approval"), []string{}, "approved"
	for _, proof := range answers {
		exactly(proof, "form", "count", "head", "index", "path", "record")
		answered, place := checkRecord(proof, keys)
		answer := at(answered, "result", "approval")
		facts = append(facts, checkAnswer(call, answer), place)
		people, event = append(people, list(answer, "by")...), text(answer, "event")
	}
	isWhole := event == "approved" && slices.Equal(slices.Sorted(slices.Values(people)), slices.Sorted(slices.Values(list(call, "by"))))
	need(text(call, "event") != "consumed" || isWhole, "answers", "an answer that the call needed is missing, or stands twice")
	return facts, nil
}

const limits = "not proved: that the records are true, since a head shows what the node recorded; that no later record is about this decision; " +
	"that the policies lead to this outcome; that a passkey is that of a person; the content of cards, of which there is the SHA-256; " +
	"answers to other approvals, by which people endorsed values of the call"

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: verify-receipt KEYS.json RECEIPT")
	}
	keys, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if lines := bufio.NewScanner(os.Stdin); os.Args[2] == "-" {
		for lines.Buffer(nil, 1<<26); lines.Scan(); {
			receipt, _ := base64.StdEncoding.DecodeString(lines.Text())
			_, refusal := verify(receipt, keys)
			fmt.Println(refusal)
		}
		return
	}
	receipt, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	facts, refusal := verify(receipt, keys)
	if refusal != nil {
		fmt.Printf("refused: %q\n", refusal)
		os.Exit(2)
	}
	for _, fact := range append(facts, limits) {
		fmt.Println(strings.Trim(fmt.Sprintf("%q", fact), `"`))
	}
}
