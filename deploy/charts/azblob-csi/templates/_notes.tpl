{{/* What is said after an installation. */}}
{{- define "azblob.notes" -}}
{{ .Chart.Name }} {{ .Chart.AppVersion }} serves {{ .Values.driver.name }}.

  kubectl -n {{ .Release.Namespace }} rollout status daemonset/{{ include "azblob.node" . }}
  kubectl -n {{ .Release.Namespace }} rollout status deployment/{{ include "azblob.controller" . }}

What goes wrong with a volume stands in the pod's events (kubectl describe pod), with its fix.
{{- if not .Values.image.baseRepo }}

image.baseRepo is empty: the sidecars are pulled as {{ include "azblob.image" (dict "root" . "image" .Values.image.csiProvisioner) }} from
whatever registry the nodes take by default. If their pods do not start, set image.baseRepo to the registry that has them.
{{- end }}
{{- if ne .Release.Namespace .Values.controller.cloudConfigSecretNamespace | and .Values.controller.cloudConfigSecretNamespace }}

The cloud config is a Secret of {{ .Values.controller.cloudConfigSecretNamespace }}, and a pod mounts Secrets of its own namespace only: install into that namespace,
or copy the Secret {{ .Values.controller.cloudConfigSecretName }} to {{ .Release.Namespace }}.
{{- end }}
{{- $idle := include "azblob.idleValues" . | trim }}
{{- if $idle }}

Accepted, and without a meaning in this driver: {{ $idle | splitList "\n" | join ", " }}.
{{- end }}
{{- end -}}

{{/* Values of the Azure Blob CSI driver's chart that were given and change nothing here, one a line. */}}
{{- define "azblob.idleValues" -}}
{{- $idle := dict
  "image" (list "livenessProbe" "nodeDriverRegistrar")
  "controller" (list "livenessProbe" "allowEmptyCloudConfig")
  "node" (list "livenessProbe" "nodeDriverRegistrar" "allowEmptyCloudConfig" "enableBlobfuseProxy" "blobfuseProxy"
      "blobfuseCachePath" "appendTimeStampInCacheDir" "mountPermissions" "enableAznfsMount" "hostPath")
  "feature" (list "enableGetVolumeStats" "enableFSGroupPolicy")
  "driver" (list "customUserAgent" "userAgentSuffix" "azureGoSDKLogLevel")
  "linux" (list "distro") -}}
{{- range $part, $names := $idle }}
{{- $given := index $.Values $part }}
{{- range $names }}
{{- if hasKey $given . }}
{{ $part }}.{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
