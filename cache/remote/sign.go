package remote

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
)

// trusted are the keys one of which must have signed; none: no signature is needed.
func (o Options) trusted() []ed25519.PublicKey {
	keys := slices.Clone(o.TrustedKeys)
	if o.SigningKey != nil {
		if own, ok := o.SigningKey.Public().(ed25519.PublicKey); ok {
			keys = append(keys, own)
		}
	}
	return keys
}

// signed are the bytes that a signature is about. The scope is in them: what was signed for one branch does not count for another. The nonce is not, nor are the holders: they
// say nothing that a reader uses.
func (t tagged) signed() []byte {
	return fmt.Appendf(nil, "optbuild cache index %d\n%q\n%s\n%d\n", version, t.scope, t.index.Digest, t.index.Size)
}

func (t *tagged) sign(key ed25519.PrivateKey) {
	if key != nil {
		t.signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, t.signed()))
	}
}

// verify says why the index of a tag is not trusted.
func (t tagged) verify(keys []ed25519.PublicKey) error {
	if len(keys) == 0 {
		return nil
	}
	if t.signature == "" {
		return errors.New("it is not signed")
	}
	sig, err := base64.StdEncoding.DecodeString(t.signature)
	if err != nil {
		return errors.New("its signature is none")
	}
	for _, k := range keys {
		if ed25519.Verify(k, t.signed(), sig) {
			return nil
		}
	}
	return errors.New("it is not signed by a trusted key")
}

// maxKeyFile bounds a key file.
const maxKeyFile = 64 << 10

// ReadSigningKey reads a private key: PEM, PKCS #8, as `openssl genpkey -algorithm ed25519` writes it.
func ReadSigningKey(path string) (ed25519.PrivateKey, error) {
	for block, err := range pemBlocks(path) {
		if err != nil {
			return nil, err
		}
		if block.Type != "PRIVATE KEY" {
			continue
		}
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read signing key %s: %w", path, err)
		}
		if key, ok := k.(ed25519.PrivateKey); ok {
			return key, nil
		}
		return nil, fmt.Errorf("read signing key %s: it is a %T, not an Ed25519 key", path, k)
	}
	return nil, fmt.Errorf("read signing key %s: there is no private key in it", path)
}

// ReadTrustedKeys reads the public keys of a file: PEM, PKIX, as `openssl pkey -pubout` writes them, one behind another.
func ReadTrustedKeys(path string) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for block, err := range pemBlocks(path) {
		if err != nil {
			return nil, err
		}
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("read trusted keys %s: there is a %q in it", path, clip(block.Type))
		}
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read trusted keys %s: %w", path, err)
		}
		key, ok := k.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("read trusted keys %s: it has a %T, not an Ed25519 key", path, k)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read trusted keys %s: there is no public key in it", path)
	}
	return keys, nil
}

// pemBlocks are the blocks of a file.
func pemBlocks(path string) func(yield func(*pem.Block, error) bool) {
	return func(yield func(*pem.Block, error) bool) {
		info, err := os.Stat(path)
		if err == nil && info.Size() > maxKeyFile {
			err = fmt.Errorf("read key %s: it has %d bytes: too many", path, info.Size())
		}
		var b []byte
		if err == nil {
			b, err = os.ReadFile(path)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for {
			var block *pem.Block
			if block, b = pem.Decode(b); block == nil || !yield(block, nil) {
				return
			}
		}
	}
}
