// SPDX-License-Identifier: Apache-2.0

// Gosev says what go-sev-guest makes of reports: one line of JSON for each directory named.
//
// A directory holds report.bin, the certificates as DER (vcek or vlek, ask or asvk, and the
// trusted root.der), "line" with the product line, "at" with the seconds since 1970 to judge
// at and "report_data", the 64 bytes that are expected. Serves tests/verifiers; no part of troth.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

// optional is the content of a file, nil where there is none.
func optional(folder, name string) []byte {
	data, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return nil
	}
	return data
}

// judge verifies signature and chain and validates what a permissive verifier must still refuse.
func judge(folder string) (err error) {
	defer func() {
		if told := recover(); told != nil {
			err = fmt.Errorf("panic: %v", told)
		}
	}()
	line := strings.TrimSpace(string(optional(folder, "line")))
	at, err := strconv.ParseInt(strings.TrimSpace(string(optional(folder, "at"))), 10, 64)
	if err != nil {
		return err
	}
	root := trust.AMDRootCertsProduct(line)
	root.ProductCerts = &trust.ProductCerts{}
	if root.ProductCerts.Ark, err = trust.ParseCert(optional(folder, "root.der")); err != nil {
		return err
	}
	if der := optional(folder, "ask.der"); der != nil {
		if root.ProductCerts.Ask, err = trust.ParseCert(der); err != nil {
			return err
		}
	}
	if der := optional(folder, "asvk.der"); der != nil {
		if root.ProductCerts.Asvk, err = trust.ParseCert(der); err != nil {
			return err
		}
	}
	report, err := abi.ReportToProto(optional(folder, "report.bin"))
	if err != nil {
		return err
	}
	attestation := &sevsnp.Attestation{
		Report: report,
		CertificateChain: &sevsnp.CertificateChain{
			VcekCert: optional(folder, "vcek.der"),
			VlekCert: optional(folder, "vlek.der"),
			AskCert:  optional(folder, "ask.der"),
			ArkCert:  optional(folder, "root.der"),
			Extras:   map[string][]byte{},
		},
	}
	err = verify.SnpAttestation(attestation, &verify.Options{
		DisableCertFetching: true,
		Now:                 time.Unix(at, 0),
		TrustedRoots:        map[string][]*trust.AMDRootCerts{line: {root}},
	})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	err = validate.SnpAttestation(attestation, &validate.Options{
		GuestPolicy: abi.SnpPolicy{SMT: true, MigrateMA: true, CXLAllowed: true},
		ReportData:  optional(folder, "report_data"),
		// Committed firmware below the current one is nothing wrong by itself.
		PermitProvisionalFirmware: true,
	})
	if err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	return nil
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, folder := range os.Args[1:] {
		said := ""
		if err := judge(folder); err != nil {
			said = err.Error()
		}
		if err := out.Encode(map[string]string{"case": filepath.Base(folder), "refused": said}); err != nil {
			os.Exit(1)
		}
	}
}
