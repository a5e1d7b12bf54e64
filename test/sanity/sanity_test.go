// Runs csi-sanity, the conformance suite of the Container Storage Interface, against a running controller and node. The
// sockets, the directory for mounts and the secrets come from the environment: test/csi_sanity.rs sets them.
package sanity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
)

func TestSanity(t *testing.T) {
	node, controller, work := os.Getenv("SANITY_NODE"), os.Getenv("SANITY_CONTROLLER"), os.Getenv("SANITY_DIRECTORY")
	secrets := os.Getenv("SANITY_SECRETS")
	if node == "" || controller == "" || work == "" || secrets == "" {
		t.Fatal("SANITY_NODE, SANITY_CONTROLLER, SANITY_DIRECTORY and SANITY_SECRETS must be set: run cargo test --test csi_sanity")
	}
	config := sanity.NewTestConfig()
	config.Address = node
	config.ControllerAddress = controller
	config.SecretsFile = secrets
	config.TargetPath = filepath.Join(work, "targets")
	config.StagingPath = filepath.Join(work, "staging")
	sanity.Test(t, config)
}
